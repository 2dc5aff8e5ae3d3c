"""What the tests of the simulation engine share: a seeded random MACE and analytic potentials."""

from __future__ import annotations

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


def write_tiny_mace(path: Path, heads: Sequence[str] = ("Default",), seed: int = 5) -> Path:
    """Save a MACE of 8 channels with random weights; smooth, so that dynamics on it is stable for a while."""
    import mace  # noqa: F401
    import torch
    from e3nn import o3
    from mace import modules

    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = modules.ScaleShiftMACE(
            r_max=4.0,
            num_bessel=6,
            num_polynomial_cutoff=5,
            max_ell=2,
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
    torch.set_default_dtype(before)
    torch.save(model, path)
    return path


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
    """Nothing interacts: the ideal gas."""

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Zero energy and forces."""
        return [Evaluation(0.0, forces=np.zeros((len(c.positions), 3))) for c in configurations]


class HarmonicCrystal:
    """Every atom on a spring of its own: a canonical ensemble known exactly.

    :param stiffness: in eV/Å²
    """

    def __init__(self, centres: Array, stiffness: float):
        self.centres, self.stiffness = centres, stiffness

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Energy and forces of the springs."""
        away = [c.positions - self.centres for c in configurations]
        return [Evaluation(0.5 * self.stiffness * float((x**2).sum()), forces=-self.stiffness * x) for x in away]


def thermal(temperature: float) -> float:
    """Return kT in eV."""
    return float(units.kB * temperature)
