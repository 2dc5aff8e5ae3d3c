"""What the grand-canonical engine must give where the answer is known; run briefly by tests, long by a benchmark."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from aiida_mofmace.worker.kernels.dynamics import initial_state
from aiida_mofmace.worker.kernels.exchange import Exchange, MoveRules, Species
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import minimum_image
from aiida_mofmace.worker.kernels.ideal_gas import Molecule, RigidReservoir
from aiida_mofmace.worker.kernels.model import Evaluation
from aiida_mofmace.worker.kernels.multiple_try import MultipleTry, log_bias
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.kernels.surrogate import LennardJonesSurrogate, Surroundings
from aiida_mofmace.worker.kernels.thermodynamics import ideal_gas_number
from aiida_mofmace.worker.programs.hybrid import HybridSimulation, MdGcmcParameters
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, Array, BondedMolecules, LennardJones, thermal

STARTER = Path(__file__).parents[2] / "aiida_mofmace" / "starter" / "starter.model"
TEMPERATURE = 300.0
ARGON = CO2 | {"name": "Ar", "symbols": ["Ar"], "positions": [[0, 0, 0]]}
KRYPTON = ARGON | {"name": "Kr", "symbols": ["Kr"]}
#: UFF's parameters; they have nothing to do with the potentials of the proofs, so the bias has to cancel.
SURROGATE = {
    "cutoff": 5.0,
    "ceiling": 0.04,
    "diameter_scale": 0.9,
    "parameters": {"C": [52.8, 3.43], "O": [30.2, 3.12], "Al": [254.2, 4.01], "Ar": [93.1, 3.45], "Kr": [110.7, 3.69]},
}
MULTIPLE_TRY = {"trial_places": 8, "surrogate": SURROGATE}
MONTE_CARLO = {"exchange": 2.0, "translation": 1.0, "rotation": 1.0}


@dataclass(frozen=True)
class Figure:
    """One figure with its standard error, and what it must be."""

    name: str
    found: float
    error: float
    expected: float

    @property
    def deviation(self) -> float:
        """In standard errors."""
        return (self.found - self.expected) / self.error


def figure(name: str, series: Any, expected: float) -> Figure:
    """Mean of a correlated series from its first value on."""
    estimate = estimate_mean(np.asarray(series, dtype=float), detect_equilibration=False)
    return Figure(name, estimate.mean, estimate.error, expected)


def parameters(**changes: Any) -> MdGcmcParameters:
    """Parameters with every guard off."""
    defaults = {
        "temperature": TEMPERATURE,
        "pressure": 1e5,
        "gas": CO2,
        "timestep_fs": 1.0,
        "stride": 10**9,
        "md_steps_per_attempt": 1,
        "attempts_per_block": 4,
        "thermostat_time_fs": 50.0,
        "minimum_distance": 0.0,
        "model_hole_bound": -10.0,
        "explosion_distance": 0.0,
        "max_temperature_factor": 50.0,
        "checkpoint_seconds": np.inf,
    }
    return MdGcmcParameters(**(defaults | changes))


def simulate(potential: Any, edge: float, seed: int, **changes: Any) -> HybridSimulation:
    """Run in a cubic cell whose framework is one atom of aluminium, by the engine that the changes name."""
    make: Any = HybridSimulation
    if changes.get("engine") == "lammps":
        from aiida_mofmace.worker.programs.hybrid_lammps import LammpsHybridSimulation

        make = LammpsHybridSimulation
    cell = Atoms("Al", cell=[edge] * 3, pbc=True)
    simulation: HybridSimulation = make(parameters(**changes), potential, cell, seed=seed)
    assert simulation.advance(StopRequest())[0] is None
    return simulation


def ideal_gas(expected: float, flexible: bool, length: int = 1, **how: Any) -> list[Figure]:
    """CO2 that does not interact: the mean is β f V, the distribution Poisson's.

    :param how: further parameters, e.g. MULTIPLE_TRY
    """
    edge = 20.0
    what: dict[str, Any] = {"initial_loading": int(expected), "steps": 1200 * length}
    if not flexible:
        what |= {"gas_flexible": False, "moves": MONTE_CARLO, "translation_step": 2.0, "rotation_step": 60.0}
    pressure = expected / ideal_gas_number(1.0, edge**3, TEMPERATURE)
    simulation = simulate(
        BondedMolecules(Gas.from_dict(CO2)),
        edge,
        int(expected),
        pressure=pressure,
        **{"attempts_per_block": 8} | what | how,
    )
    loading = simulation.series.arrays()["loading"]
    kind = f"{'flexible' if flexible else 'rigid'}{_tries(how)}"
    return [
        figure(f"ideal gas, {kind}: <N>", loading, expected),
        figure(f"ideal gas, {kind}: variance of N", (loading - expected) ** 2, expected),
    ]


class Wells:
    """Sites that hold one atom each; elsewhere, or beside another atom in a site, the energy is prohibitive.

    :param centres: of the sites in Å, shape (sites, 3)
    :param radius: of the sites in Å
    :param depths: energy of an atom in a site in eV, by atomic number
    """

    r_max = 3.0

    def __init__(self, centres: Array, radius: float, depths: dict[int, float]):
        self.centres, self.radius, self.depths = centres, radius, depths

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [self._evaluate(np.asarray(c.numbers), np.asarray(c.positions)) for c in configurations]

    def _evaluate(self, numbers: Array, positions: Array) -> Evaluation:
        forces = np.zeros((len(positions), 3))
        if 13 not in numbers:
            return Evaluation(0.0, forces=forces)
        gas = numbers != 13
        inside = np.linalg.norm(positions[gas][:, None] - self.centres, axis=-1) < self.radius
        is_allowed = np.all(inside.sum(axis=1) == 1) and np.all(inside.sum(axis=0) <= 1)
        energy = -sum(self.depths[int(number)] for number in numbers[gas])
        return Evaluation(energy if is_allowed else 1e3, forces=forces)


def _tries(how: dict[str, Any]) -> str:
    tries = f", k = {how['trial_places']}" if "trial_places" in how else ""
    return tries + (f", {how['engine']}" if "engine" in how else "")


def langmuir(occupied: dict[str, float], length: int = 1, **how: Any) -> list[Figure]:
    """Eight sites: N_i = M K_i f_i / (1 + Σ K_j f_j), K = β v exp(β ε), without any dynamics.

    :param occupied: wanted fraction of the sites with each gas, from which the fugacities are computed
    :param how: further parameters, e.g. MULTIPLE_TRY
    """
    edge, sites, radius = 8.0, 8, 1.7
    depths = {"Ar": 0.05, "Kr": 0.08}
    centres = np.array([[x, y, z] for x in (2, 6) for y in (2, 6) for z in (2, 6)], dtype=float)
    volume = 4 / 3 * np.pi * radius**3
    descriptions = [{"Ar": ARGON, "Kr": KRYPTON}[name] for name in occupied]
    vacant = 1 - sum(occupied.values())
    fugacity = {
        name: share / vacant / ideal_gas_number(1.0, volume, TEMPERATURE) / np.exp(depths[name] / thermal(TEMPERATURE))
        for name, share in occupied.items()
    }
    components = [each | {"mole_fraction": 1 / len(descriptions)} for each in descriptions]
    simulation = simulate(
        Wells(centres, radius, {18: depths["Ar"], 36: depths["Kr"]}),
        edge,
        seed=int(100 * vacant),
        gas={"name": "mixture", "components": components},
        fugacity=fugacity,
        gas_flexible=False,
        framework_flexible=False,
        moves={"exchange": 1.0, "translation": 0.05},
        translation_step=4.0,
        attempts_per_block=10,
        steps=2000 * length,
        **how,
    )
    arrays = simulation.series.arrays()
    several = len(occupied) > 1
    return [
        figure(
            f"Langmuir, {'+'.join(occupied)}{_tries(how)}: <N({name})>",
            arrays[f"loading_{name}" if several else "loading"],
            sites * share,
        )
        for name, share in occupied.items()
    ]


class Fluid(LennardJones):
    """Lennard-Jones atoms beside a framework that does nothing."""

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [self._fluid(np.asarray(c.numbers), np.asarray(c.positions), np.asarray(c.cell)) for c in configurations]

    def _fluid(self, numbers: Array, positions: Array, cell: Array) -> Evaluation:
        gas = numbers != 13
        everything = np.zeros((len(positions), 3))
        if not gas.any():
            return Evaluation(0.0, forces=everything)
        answer = self._evaluate(positions[gas], cell)
        everything[gas] = answer.forces
        return Evaluation(answer.interaction_energy, forces=everything)


#: Vapour at saturation of the Lennard-Jones fluid, force shifted at three diameters, in a cell of 512 cubed diameters:
#: reduced density, pressure, energy of an atom and logarithm of the activity by reduced temperature. NIST Standard
#: Reference Simulation Website, SAT-TMMC (grand-canonical transition-matrix Monte Carlo), linear-force shifted.
NIST = {0.80: (2.000e-2, 1.398e-2, -0.1918, -4.164), 0.85: (3.043e-2, 2.146e-2, -0.2789, -3.833)}


def lennard_jones(reduced: float, dynamics: bool, length: int = 1, **how: Any) -> list[Figure]:
    """Density, pressure, energy and temperature of the Lennard-Jones vapour against NIST's grand-canonical figures.

    :param reduced: reduced temperature
    :param dynamics: molecular dynamics between the exchanges, else Monte Carlo translations
    :param how: further parameters, e.g. MULTIPLE_TRY
    """
    potential = Fluid(r_max=3.0 * 3.4)
    depth, diameter = potential.depth, potential.diameter
    density, pressure, energy, activity = NIST[reduced]
    temperature, volume = reduced * depth / units.kB, 512 * diameter**3
    what: dict[str, Any] = {
        "md_steps_per_attempt": 5,
        "steps": 10000 * length,
        "attempts_per_block": 12,
        "stride": 25,
    }
    if not dynamics:
        what |= {"gas_flexible": False, "framework_flexible": False, "md_steps_per_attempt": 1, "translation_step": 6.0}
        what |= {"moves": {"exchange": 1.0, "translation": 1.0}, "steps": 3000 * length, "attempts_per_block": 20}
    simulation = simulate(
        potential,
        8 * diameter,
        seed=5,
        temperature=temperature,
        gas=ARGON,
        fugacity=np.exp(activity) / diameter**3 * thermal(temperature) / units.Pascal,
        timestep_fs=8.0,
        thermostat_time_fs=400.0,
        initial_loading=int(density * 512),
        minimum_distance=2.5,
        **what,
        **how,
    )
    arrays = simulation.series.arrays()
    loading = arrays["loading"]
    pressures = [
        (len(frame) - 1) * thermal(temperature) / volume + potential.virial(frame[1:]) / (3 * volume)
        for frame in simulation.images
    ]
    name = f"Lennard-Jones, T* {reduced:.2f}, {'MD' if dynamics else 'MC'}{_tries(how)}:"
    figures = [
        figure(f"{name} density", loading / 512, density),
        figure(f"{name} pressure", np.array(pressures) * diameter**3 / depth, pressure),
        figure(f"{name} energy of the cell", arrays["potential_energy"] / depth, energy * density * 512),
    ]
    return figures + (kinetics(name, arrays["temperature"] / temperature, loading) if dynamics else [])


def kinetics(name: str, relative: Array, loading: Array) -> list[Figure]:
    """Mean and variance of the kinetic temperature while the number of degrees of freedom, 3 N, changes.

    :param relative: kinetic temperature over the wanted one, before the exchanges of each block
    :param loading: after them
    """
    freedoms = 3 * loading[:-1]
    relative, freedoms = relative[1:][freedoms > 0], freedoms[freedoms > 0]
    return [
        figure(f"{name} kinetic temperature / T", relative, 1.0),
        figure(f"{name} variance of it x 3 N / 2", (relative - 1) ** 2 * freedoms / 2, 1.0),
    ]


class Attraction:
    """Argon drawn to one aluminium atom by a Gaussian well, and not to each other.

    :param depth: in eV
    :param width: in Å
    """

    r_max = 3.0

    def __init__(self, depth: float, width: float):
        self.depth, self.width = depth, width

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [
            self._evaluate(np.asarray(c.numbers), np.asarray(c.positions), np.asarray(c.cell)) for c in configurations
        ]

    def _evaluate(self, numbers: Array, positions: Array, cell: Array) -> Evaluation:
        if numbers[0] != 13:
            return Evaluation(0.0, forces=np.zeros((len(positions), 3)))
        vectors = minimum_image(positions[1:] - positions[0], cell)
        wells = -self.depth * np.exp(-0.5 * (vectors**2).sum(axis=1) / self.width**2)
        pulls = wells[:, None] * vectors / self.width**2
        return Evaluation(float(wells.sum()), forces=np.concatenate([[-pulls.sum(axis=0)], pulls]))

    def boltzmann_integrals(self, edge: float, temperature: float) -> tuple[float, float]:
        """∫ exp(-β u) in Å³ and ∫ u exp(-β u) in eV Å³ over a cubic cell."""
        radius = np.linspace(0, 0.5 * edge, 20001)
        energy = -self.depth * np.exp(-0.5 * (radius / self.width) ** 2)
        shell = 4 * np.pi * radius**2 * (radius[1] - radius[0])
        factor = np.exp(-energy / thermal(temperature))
        return edge**3 + float((shell * (factor - 1)).sum()), float((shell * energy * factor).sum())


def henry(framework_flexible: bool, thermostat: str, length: int = 1, engine: str = "native") -> list[Figure]:
    """⟨N⟩ = β f ∫ exp(-β u) and ⟨U⟩ = β f ∫ u exp(-β u); the flexible framework is so light that it recoils."""
    edge, fugacity, potential = 14.0, 2e6, Attraction(0.1, 1.5)
    simulation = simulate(
        potential,
        edge,
        seed=8,
        pressure=fugacity,
        gas=ARGON,
        timestep_fs=5.0,
        steps=15000 * length,
        md_steps_per_attempt=3,
        attempts_per_block=2,
        thermostat_time_fs=100.0,
        initial_loading=1,
        framework_flexible=framework_flexible,
        thermostat=thermostat,
        engine=engine,
    )
    arrays = simulation.series.arrays()
    volume, energy = potential.boltzmann_integrals(edge, TEMPERATURE)
    density = ideal_gas_number(fugacity, 1.0, TEMPERATURE)
    way = thermostat if engine == "native" else f"{thermostat}, {engine}"
    name = f"Henry, {'flexible' if framework_flexible else 'rigid'} framework, {way}:"
    moving = arrays["temperature"][arrays["temperature"] > 0]  # where nothing can move there is no temperature
    return [
        figure(f"{name} <N>", arrays["loading"], density * volume),
        figure(f"{name} <U>", arrays["potential_energy"], density * energy),
        figure(f"{name} kinetic temperature", moving, TEMPERATURE),
    ]


def enumeration(trials: int = 1, surrogate: bool = True) -> tuple[float, float]:
    """Three sites, each empty or with argon or krypton, all 27 states and all transitions between them.

    :param trials: places weighed in each attempt; every set of them that can be drawn is enumerated
    :param surrogate: whether by UFF's energy, else all that are free alike
    :return: largest |π_i P_ij - π_j P_ji| and largest |Σ_i π_i P_ij - π_j|, of a distribution that adds up to one
    """
    edge, temperature, fugacities = 24.0, 120.0, (4e5, 2e5)
    sites = np.array([[4.0, 4.0, 4.0], [7.9, 4.0, 4.0], [4.0, 8.3, 4.5]])
    potential, rng = LennardJones(r_max=9.0), np.random.default_rng(0)
    gases = [Gas.from_dict(ARGON), Gas.from_dict(KRYPTON)]
    species = [Species(g, f, RigidReservoir(g, potential)) for g, f in zip(gases, fugacities, strict=True)]
    rules = MoveRules(temperature, 1.0, -10.0)
    classical = LennardJonesSurrogate.from_dict(SURROGATE) if surrogate else None
    multiple_try = MultipleTry(trials, classical, rules.thermal, 1.0, rng)
    exchange = Exchange(species, potential, rules, rng, multiple_try)
    states = list(itertools.product((None, 0, 1), repeat=3))
    numbers = [ideal_gas_number(f, edge**3, temperature) / len(sites) for f in fugacities]
    transitions, weights = np.zeros((27, 27)), np.zeros(27)
    for i, occupation in enumerate(states):
        order = [site for kind in (0, 1) for site in range(3) if occupation[site] == kind]
        kinds = [occupation[site] for site in order]
        atoms = Atoms(
            [13, *(gases[kind].numbers[0] for kind in kinds)],
            np.concatenate([[[18.0] * 3], sites[order]]),
            cell=[edge] * 3,
        )
        counts = np.array([kinds.count(0), kinds.count(1)])
        state = initial_state(atoms, potential, temperature, rng, 1, counts=counts, sizes=np.array([1, 1]))
        weights[i] = np.prod([numbers[kind] for kind in kinds]) * np.exp(-state.energy / thermal(temperature))
        everything = Surroundings(state.numbers, state.positions, state.cell, multiple_try.reach)
        for kind, drawn in itertools.product((0, 1), itertools.product(range(3), repeat=trials)):
            log_weights = multiple_try.log_weights(gases[kind].numbers, sites[list(drawn)][:, None], everything)
            for chosen, site in enumerate(drawn):
                if log_weights[chosen] == -np.inf:
                    continue
                bias = log_bias(log_weights, chosen)
                trial = exchange.try_insertion(state, Molecule(sites[[site]], 0.0), kind, bias)
                j = states.index(tuple(kind if s == site else occupation[s] for s in range(3)))
                transitions[i, j] += trial.acceptance * np.exp(-bias) / trials / 4 / len(sites) ** trials
        for position, site in enumerate(order):
            kind = kinds[position]
            kept = np.delete(np.arange(len(state)), position + 1)
            others = Surroundings(state.numbers[kept], state.positions[kept], state.cell, multiple_try.reach)
            j = states.index(tuple(None if s == site else occupation[s] for s in range(3)))
            for fresh in itertools.product(range(3), repeat=trials - 1):
                places = sites[[site, *fresh]][:, None]
                bias = log_bias(multiple_try.log_weights(gases[kind].numbers, places, others), 0)
                trial = exchange.try_deletion(state, kinds[:position].count(kind), kind, bias)
                transitions[i, j] += trial.acceptance / 4 / kinds.count(kind) / len(sites) ** (trials - 1)
    transitions += np.diag(1.0 - transitions.sum(axis=1))
    weights /= weights.sum()
    flow = weights[:, None] * transitions
    return float(np.abs(flow - flow.T).max()), float(np.abs(flow.sum(axis=0) - weights).max())
