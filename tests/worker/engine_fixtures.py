"""What the tests of the simulation engine share: a seeded random MACE and analytic potentials."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import read
from numpy.typing import NDArray

from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import minimum_image
from aiida_mofmace.worker.kernels.model import Evaluation

Array = NDArray[np.float64]
EXAMPLES = Path(__file__).parents[2] / "examples"
ATOMIC_ENERGIES = {1: -13.6, 6: -1029.5, 8: -2042.0, 13: -6598.1}

CO2 = {
    "name": "CO2",
    "symbols": ["C", "O", "O"],
    "positions": [[0.0, 0.0, 0.0], [0.0, 0.0, 1.16], [0.0, 0.0, -1.16]],
    "linear": True,
    "critical_temperature": 304.1282,
    "critical_pressure": 7377300.0,
    "acentric_factor": 0.22394,
    "source": "test",
}


WATER = CO2 | {
    "name": "H2O",
    "symbols": ["O", "H", "H"],
    "positions": [[0.0, 0.0, 0.0], [0.75695, 0.0, 0.58588], [-0.75695, 0.0, 0.58588]],
    "linear": False,
}


def write_tiny_mace(path: Path, heads: Sequence[str] = ("Default",), seed: int = 5, **changes: Any) -> Path:
    """Save a MACE of 8 channels with random weights; smooth, so that dynamics on it is stable for a while.

    :param changes: other arguments of the model than those below
    """
    import mace  # noqa: F401
    import torch
    from e3nn import o3
    from mace import modules

    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments: dict[str, Any] = dict(
            r_max=4.0,
            num_bessel=6,
            num_polynomial_cutoff=5,
            max_ell=1,
            interaction_cls=modules.RealAgnosticResidualInteractionBlock,
            interaction_cls_first=modules.RealAgnosticInteractionBlock,
            num_interactions=2,
            num_elements=len(ATOMIC_ENERGIES),
            hidden_irreps=o3.Irreps("8x0e"),
            MLP_irreps=o3.Irreps("8x0e"),
            atomic_energies=np.array([list(ATOMIC_ENERGIES.values())] * len(heads)) + np.arange(len(heads))[:, None],
            avg_num_neighbors=20.0,
            atomic_numbers=list(ATOMIC_ENERGIES),
            correlation=2,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=[1.0] * len(heads),
            atomic_inter_shift=[0.0] * len(heads),
            pair_repulsion=True,
            heads=list(heads),
        )
        model = modules.ScaleShiftMACE(**arguments | changes)
    torch.set_default_dtype(before)
    torch.save(model, path)
    return path


def mliap_model(path: Path) -> bytes:
    """Return a model as ``mace_create_lammps_model --format=mliap`` writes it, with the kernels that it has."""
    import mace  # noqa: F401
    import torch
    from mace.calculators.lammps_mliap_mace import LAMMPS_MLIAP_MACE

    model = torch.load(path, map_location="cpu", weights_only=False).double()
    model.lammps_mliap = True
    content = io.BytesIO()
    torch.save(LAMMPS_MLIAP_MACE(model), content)
    return content.getvalue()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a random MACE that knows H, C, O and Al."""
    return write_tiny_mace(tmp_path_factory.mktemp("model") / "model.model")


@pytest.fixture
def framework() -> Atoms:
    """The 40-atom primitive cell of MIL-120(Al)."""
    return read(EXAMPLES / "MIL-120_primitive_40atoms.cif")


@pytest.fixture
def carbon_dioxide() -> Gas:
    """CO2 as the protocol describes it."""
    return Gas.from_dict(CO2)


class NoPotential:
    """Nothing interacts."""

    r_max = 3.0

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Zero energy and forces."""
        return [Evaluation(0.0, forces=np.zeros((len(c.positions), 3))) for c in configurations]


def thermal(temperature: float) -> float:
    """Return kT in eV."""
    return float(units.kB * temperature)


class BondedMolecules:
    """Non-interacting molecules with springs between all their atoms, in a framework of aluminium that does nothing.

    :param gas: the molecule
    :param stiffness: of the springs in eV/Å²
    """

    r_max = 3.0

    def __init__(self, gas: Gas, stiffness: float = 30.0):
        self.gas, self.stiffness = gas, stiffness
        self.first, self.second = np.triu_indices(len(gas), k=1)
        self.lengths = np.linalg.norm(gas.positions[self.first] - gas.positions[self.second], axis=1)

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Energies and forces of the springs, all molecules at once."""
        parts = [np.asarray(c.positions)[np.asarray(c.numbers) != 13] for c in configurations]
        molecules = np.concatenate(parts).reshape(-1, len(self.gas), 3)
        vectors = molecules[:, self.first] - molecules[:, self.second]
        lengths = np.linalg.norm(vectors, axis=-1)
        stretch = lengths - self.lengths
        pull = -self.stiffness * (stretch / lengths)[..., None] * vectors
        spring_forces = np.zeros_like(molecules)
        np.add.at(spring_forces, (slice(None), self.first), pull)
        np.subtract.at(spring_forces, (slice(None), self.second), pull)
        energies = 0.5 * self.stiffness * (stretch**2).sum(axis=1)
        answers, done = [], 0
        for configuration, part in zip(configurations, parts, strict=True):
            own = slice(done, done + len(part) // len(self.gas))
            resting = np.zeros((len(configuration.positions) - len(part), 3))
            everything = np.concatenate([resting, spring_forces[own].reshape(-1, 3)])
            answers.append(Evaluation(float(energies[own].sum()), forces=everything))
            done = own.stop
        return answers


class LennardJones:
    """Lennard-Jones atoms of argon's size and mass, cut off and shifted in energy and force.

    :param depth: in eV
    :param diameter: in Å
    :param r_max: cut-off in Å, below half the cell height
    """

    def __init__(self, depth: float = 0.0104, diameter: float = 3.4, r_max: float = 5.0):
        self.depth, self.diameter, self.r_max = depth, diameter, r_max
        self._shift, self._slope = self._pair(np.array([r_max]))

    def _pair(self, distances: Array) -> tuple[Array, Array]:
        powers = (self.diameter / distances) ** 6
        return 4 * self.depth * (powers**2 - powers), -24 * self.depth * (2 * powers**2 - powers) / distances

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Energies and forces of all pairs within the cut-off."""
        return [self._evaluate(np.asarray(c.positions), np.asarray(c.cell)) for c in configurations]

    def _evaluate(self, positions: Array, cell: Array) -> Evaluation:
        vectors = minimum_image(positions[:, None] - positions, cell)
        distances = np.sqrt((vectors**2).sum(axis=-1))
        distances[distances == 0.0] = np.inf
        close = distances < self.r_max
        energies, slopes = self._pair(np.where(close, distances, self.r_max))
        away = np.where(close, distances - self.r_max, 0.0)
        energies = np.where(close, energies - self._shift - self._slope * away, 0.0)
        slopes = np.where(close, slopes - self._slope, 0.0)
        forces = -((slopes / distances)[..., None] * vectors).sum(axis=1)
        return Evaluation(0.5 * float(energies.sum()), forces=forces)

    def virial(self, atoms: Atoms) -> float:
        """Sum over the pairs of r · f in eV, for atoms whose pairs are all within the minimum image."""
        vectors = minimum_image(atoms.positions[:, None] - atoms.positions, atoms.cell.array)
        distances = np.sqrt((vectors**2).sum(axis=-1))
        distances = distances[(distances > 0.0) & (distances < self.r_max)]
        return -0.5 * float(((self._pair(distances)[1] - self._slope) * distances).sum())
