"""What a cell that changes must give where the answer is known; run briefly by tests, long by a benchmark."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms, units

from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.model import Evaluation
from aiida_mofmace.worker.kernels.neighbour_search import neighbours
from aiida_mofmace.worker.kernels.thermodynamics import ideal_gas_number
from aiida_mofmace.worker.programs.hybrid import HybridSimulation
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, Array, BondedMolecules, LennardJones, thermal
from .gcmc_proofs import ARGON, MONTE_CARLO, TEMPERATURE, Attraction, Figure, figure, parameters

SHAPES = ("isotropic", "anisotropic", "full")
NO_EXCHANGE = {"exchange": 0.0, "translation": 1.0}


def simulate(potential: Any, framework: Atoms, seed: int, **changes: Any) -> HybridSimulation:
    """Run with a move of the cell after every step of dynamics, however far the volume goes."""
    defaults = {"md_steps_per_cell_move": 1, "max_volume_change": np.inf, "attempts_per_block": 1}
    simulation = HybridSimulation(parameters(**(defaults | changes)), potential, framework, seed=seed)
    assert simulation.advance(StopRequest())[0] is None
    return simulation


def size_and_shape(strains: Array) -> tuple[Any, Any]:
    """Sum x of the strains, and sum d² of the squares of what they differ from x/3 by; shape (..., 3) to (...)."""
    x = strains.sum(axis=-1)
    return x, ((strains - x[..., None] / 3) ** 2).sum(axis=-1)


class ShapedCell(BondedMolecules):
    """Molecules that do not interact in a cell that resists shear: an ideal gas would let its shape go anywhere.

    :param modulus: of shear in eV
    """

    def __init__(self, modulus: float):
        super().__init__(Gas.from_dict(CO2))
        self.modulus = modulus

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        answers = super().evaluate(configurations, forces)
        shapes = [size_and_shape(np.log(np.linalg.svd(np.asarray(c.cell))[1]))[1] for c in configurations]
        return [
            Evaluation(answer.interaction_energy + self.modulus * shape, forces=answer.forces)
            for answer, shape in zip(answers, shapes, strict=True)
        ]


def ideal_gas(shape: str, flexible: bool = True, length: int = 1) -> list[Figure]:
    """Molecules that do not interact, and none comes or goes: V has a gamma distribution.

    With n points, molecules and the framework's one atom, ⟨V⟩ = (n + 1) kT / P and var V = (n + 1) (kT / P)².
    """
    molecules, edge = 4, 20.0
    points = molecules + 2
    pressure = points * thermal(TEMPERATURE) / edge**3
    what: dict[str, Any] = {"moves": NO_EXCHANGE, "translation_step": 1.0}
    if not flexible:
        what = {"gas_flexible": False, "moves": MONTE_CARLO | {"exchange": 0.0}}
        what |= {"translation_step": 1.0, "rotation_step": 60.0}
    simulation = simulate(
        ShapedCell(2.0 * thermal(TEMPERATURE)),
        Atoms("Al", cell=[edge] * 3, pbc=True),
        seed=3,
        flexible_cell=shape,
        cell_step={"isotropic": 1.2, "anisotropic": 1.5, "full": 2.0}[shape],
        cell_pressure=pressure / units.Pascal,
        initial_loading=molecules,
        steps=2500 * length,
        **what,
    )
    volume = simulation.series.arrays()["volume"] / edge**3
    kind = f"ideal gas of 4, {'flexible' if flexible else 'rigid'}, {shape}:"
    return [
        figure(f"{kind} <V> / V0", volume, 1.0),
        figure(f"{kind} variance of V / V0", (volume - 1.0) ** 2, 1.0 / points),
    ]


class ElasticCrystal:
    """Atoms of aluminium on springs to the first of them, in a cell of known elasticity; other atoms feel nothing.

    With the strains e of the cell's principal axes (logarithms of the stretches), x their sum and d² the sum of the
    squares of what they differ from x/3 by, the cell has the energy b x² / 2 + g d². It does not depend on how the cell
    is turned.

    :param framework: with the cell at rest
    :param bulk: b in eV
    :param shear: g in eV
    :param stiffness: of the springs in eV/Å²
    """

    r_max = 3.0

    def __init__(self, framework: Atoms, bulk: float, shear: float, stiffness: float = 1.0):
        self.bulk, self.shear, self.stiffness = bulk, shear, stiffness
        self.cell, self.sites = framework.cell.array, framework.get_scaled_positions(wrap=False)

    def strains(self, cell: Array) -> Array:
        """Logarithms of the principal stretches, shape (3,)."""
        return np.log(np.linalg.svd(np.linalg.inv(self.cell) @ cell, compute_uv=False))

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [
            self._evaluate(np.asarray(c.numbers), np.asarray(c.positions), np.asarray(c.cell)) for c in configurations
        ]

    def _evaluate(self, numbers: Array, positions: Array, cell: Array) -> Evaluation:
        forces = np.zeros((len(positions), 3))
        if numbers[0] != 13:
            return Evaluation(0.0, forces=forces)
        n = len(self.sites)
        away = positions[:n] - positions[0] - (self.sites - self.sites[0]) @ cell
        pulls = -self.stiffness * away
        forces[:n], forces[0] = pulls, pulls[0] - pulls.sum(axis=0)
        x, square = size_and_shape(self.strains(cell))
        energy = 0.5 * self.stiffness * (away**2).sum() + 0.5 * self.bulk * x**2 + self.shear * square
        return Evaluation(float(energy), forces=forces)


def mean(values: Callable[[Array], Array], weights: Callable[[Array], Array], grid: Array) -> float:
    """Quotient of two integrals over a grid."""
    factor = weights(grid)
    return float((values(grid) * factor).sum() / factor.sum())


def elastic_crystal(shape: str, length: int = 1) -> list[Figure]:
    """Three atoms on springs and four that are free in a soft cell under pressure: size and shape.

    The springs make one point of the three atoms, so p(x) ∝ exp[(n + 1) x - βPV₀ eˣ - βb x²/2] with n = 5. The shape
    has p ∝ exp(-βg d²), times Π sinh|eᵢ - eⱼ| where all components of the strain are free: that is the volume that the
    group of strains, without the rotations, gives to three principal stretches (Helgason, Groups and Geometric
    Analysis, ch. I, theorem 5.8).
    """
    edge, argon, b, g, work = 10.0, 4, 8.0, 2.0, 4.0  # b, g and work are over kT
    kT = thermal(TEMPERATURE)
    framework = Atoms("Al3", [[1, 1, 1], [6, 2, 5], [3, 7, 4]], cell=[edge] * 3, pbc=True)
    potential = ElasticCrystal(framework, b * kT, g * kT)
    simulation = simulate(
        potential,
        framework,
        seed=6,
        gas=ARGON,
        moves=NO_EXCHANGE,
        translation_step=1.0,
        flexible_cell=shape,
        cell_step=1.5,
        cell_pressure=work * kT / edge**3 / units.Pascal,
        initial_loading=argon,
        steps=4000 * length,
        stride=1,
        thermostat="langevin",
    )
    strains = np.array([potential.strains(frame.cell.array) for frame in simulation.images])
    x, square = size_and_shape(strains)
    sizes = np.linspace(-4, 4, 4001)

    def of_size(x: Array) -> Array:
        return np.exp((argon + 2) * x - work * np.exp(x) - 0.5 * b * x**2)

    name = f"elastic crystal, {shape}:"
    first = mean(lambda x: x, of_size, sizes)
    figures = [
        figure(f"{name} ln V / V0", x, first),
        figure(f"{name} variance of it", (x - first) ** 2, mean(lambda x: (x - first) ** 2, of_size, sizes)),
    ]
    if shape == "isotropic":
        return figures
    return [*figures, figure(f"{name} d^2", square, mean_shape(shape, g))]


def mean_shape(shape: str, shear: float) -> float:
    """⟨d²⟩ of a cell of shear modulus g over kT, by integration over two coordinates of its shape."""
    p, q = np.meshgrid(*[np.linspace(-5, 5, 1001)] * 2)
    p, q = p / np.sqrt(2), q / np.sqrt(6)
    strains = np.stack([p + q, q - p, -2 * q], axis=-1)

    def weights(strains: Array) -> Array:
        factor = np.exp(-shear * size_and_shape(strains)[1])
        if shape == "full":
            for i, j in itertools.combinations(range(3), 2):
                factor = factor * np.sinh(np.abs(strains[..., i] - strains[..., j]))
        return factor

    return mean(lambda strains: size_and_shape(strains)[1], weights, strains)


def boltzmann_integrals(potential: Attraction, edge: float) -> tuple[float, float]:
    """∫ exp(-β u) in Å³ and ∫ u exp(-β u) in eV Å³ over a cubic cell around the aluminium atom."""
    axis = (np.arange(48) + 0.5) / 48 * edge / 2
    squares = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    energy = -potential.depth * np.exp(-0.5 * squares / potential.width**2)
    factor = np.exp(-energy / thermal(TEMPERATURE))
    voxel = (edge / 96) ** 3
    return 8 * voxel * float(factor.sum()), 8 * voxel * float((energy * factor).sum())


def osmotic(length: int = 1) -> list[Figure]:
    """Gas comes and goes while the cell breathes: p(V) ∝ V exp[-βPV + βf I(V)], with I = ∫ exp(-βu) over the cell.

    One light atom is the framework; it draws the atoms of the gas by a Gaussian well, about as wide as a small cell.
    """
    potential, fugacity, pressure = Attraction(0.06, 2.0), 4e6, 9e6
    edge = 14.0
    simulation = simulate(
        potential,
        Atoms("Al", cell=[edge] * 3, pbc=True),
        seed=9,
        gas=ARGON,
        pressure=fugacity,
        cell_pressure=pressure,
        flexible_cell="isotropic",
        cell_step=1.5,
        timestep_fs=5.0,
        thermostat="langevin",
        thermostat_time_fs=100.0,
        md_steps_per_attempt=2,
        md_steps_per_cell_move=2,
        attempts_per_block=3,
        initial_loading=2,
        steps=6000 * length,
    )
    arrays = simulation.series.arrays()
    edges = np.linspace(0.3, 40, 400)
    integrals = np.array([boltzmann_integrals(potential, edge) for edge in edges])
    density = ideal_gas_number(fugacity, 1.0, TEMPERATURE)
    volumes, loadings, energies = edges**3, density * integrals[:, 0], density * integrals[:, 1]
    work = pressure * units.Pascal / thermal(TEMPERATURE)
    weights = edges**2 * volumes * np.exp(loadings - work * volumes)

    def average(values: Array) -> float:
        return float((values * weights).sum() / weights.sum())

    mean_volume, mean_loading = average(volumes), average(loadings)
    cross = (arrays["volume"] - mean_volume) * (arrays["loading"] - mean_loading)
    name = "osmotic ensemble:"
    moving = arrays["temperature"][arrays["temperature"] > 0]
    return [
        figure(f"{name} <V>", arrays["volume"], mean_volume),
        figure(f"{name} <N>", arrays["loading"], mean_loading),
        figure(f"{name} <U>", arrays["potential_energy"], average(energies)),
        figure(f"{name} covariance of V and N", cross, average(volumes * loadings) - mean_volume * mean_loading),
        figure(f"{name} kinetic temperature", moving, TEMPERATURE),
    ]


class Liquid(LennardJones):
    """The same pairs, found by a neighbour list."""

    def _evaluate(self, positions: Array, cell: Array) -> Evaluation:
        (first, second), shifts, inside = neighbours(positions, cell, self.r_max)
        vectors = inside[second] + shifts @ cell - inside[first]
        distances = np.sqrt((vectors**2).sum(axis=1))
        energies, slopes = self._pair(distances)
        energies = energies - self._shift - self._slope * (distances - self.r_max)
        pulls = ((slopes - self._slope) / distances)[:, None] * vectors
        forces = np.stack([np.bincount(first, pulls[:, axis], len(positions)) for axis in range(3)], axis=1)
        return Evaluation(0.5 * float(energies.sum()), forces=forces)


#: Liquid at saturation of the Lennard-Jones fluid, force shifted at three diameters: reduced density, pressure and
#: energy of an atom by reduced temperature. NIST Standard Reference Simulation Website, SAT-TMMC (grand-canonical
#: transition-matrix Monte Carlo), linear-force shifted.
NIST_LIQUID = {0.80: (0.7294, 1.398e-2, -4.462)}


def lennard_jones_liquid(shape: str, length: int = 1) -> list[Figure]:
    """Density and energy of 180 atoms at constant pressure against NIST's grand-canonical figures."""
    reduced = 0.80
    density, pressure, energy = NIST_LIQUID[reduced]
    potential = Liquid(r_max=3.0 * 3.4)
    depth, diameter = potential.depth, potential.diameter
    edges = np.full(3, (180 / density) ** (1 / 3) * diameter)
    sites = np.array(list(itertools.product(range(6), range(6), range(5)))) / [6, 6, 5]
    atoms = Atoms("Al180", sites * edges, cell=edges, pbc=True)
    simulation = simulate(
        potential,
        atoms,
        seed=4,
        gas=ARGON,
        moves=NO_EXCHANGE,
        translation_step=1.0,
        temperature=reduced * depth / units.kB,
        timestep_fs=12.0,
        thermostat_time_fs=400.0,
        flexible_cell=shape,
        cell_step=0.02,
        md_steps_per_attempt=2,
        md_steps_per_cell_move=2,
        cell_pressure=pressure * depth / diameter**3 / units.Pascal,
        steps=6000 * length,
    )
    arrays = simulation.series.arrays()
    kept = slice(len(arrays["volume"]) // 4, None)
    name = f"Lennard-Jones liquid, T* {reduced:.2f}, {shape}:"
    return [
        figure(f"{name} density", 180 * diameter**3 / arrays["volume"][kept], density),
        figure(f"{name} energy of an atom", arrays["potential_energy"][kept] / 180 / depth, energy),
    ]
