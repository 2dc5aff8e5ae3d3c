"""Gas descriptions: those that are shipped, and those that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.gases import Gas

from .engine_fixtures import CO2

GASES = sorted((Path(__file__).parents[2] / "aiida_mofmace" / "protocols" / "gases").glob("*.yaml"))
MASSES = {"CO2": 44.009, "H2O": 18.015, "N2": 28.014, "CH4": 16.043}


@pytest.mark.parametrize("path", GASES, ids=lambda path: path.stem)
def test_shipped_gases(path: Path) -> None:
    gas = Gas.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert gas.name == path.stem
    assert gas.mass == pytest.approx(MASSES[gas.name], abs=1e-3)
    assert gas.masses @ gas.positions == pytest.approx(np.zeros(3), abs=1e-12)


def test_moments_of_inertia() -> None:
    """CO2: 2 m_O r²; its axis carries none. Turning the molecule changes nothing."""
    gas = Gas.from_dict(CO2)
    assert gas.moments_of_inertia == pytest.approx([0.0, 2 * 15.999 * 1.16**2, 2 * 15.999 * 1.16**2], abs=1e-9)
    tilted = Gas.from_dict(CO2 | {"positions": [[5, 5, 5], [5 + 0.696, 5 + 0.928, 5], [5 - 0.696, 5 - 0.928, 5]]})
    assert tilted.moments_of_inertia == pytest.approx(gas.moments_of_inertia, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbols": ["C", "O", "Q"]}, "chemical elements"),
        ({"symbols": []}, "chemical elements"),
        ({"positions": [[0, 0, 0]]}, "3 positions"),
        ({"positions": [[0, 0, 0], [0, 0, 0.1], [0, 0, -1.16]]}, "closer than"),
        ({"linear": False}, "the positions say True"),
        ({"positions": [[0, 0, 0], [0, 1, 1.16], [0, 0, -1.16]]}, "the positions say False"),
        ({"critical_pressure": -1.0}, "must be positive"),
        ({"charge": 1}, "unknown \\['charge'\\]"),
    ],
)
def test_impossible_gases_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerError, match=message) as caught:
        Gas.from_dict(CO2 | change)
    assert caught.value.kind == "bad_input"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(WorkerError, match="missing keys \\['acentric_factor'\\]"):
        Gas.from_dict({key: value for key, value in CO2.items() if key != "acentric_factor"})


def test_a_molecule_of_which_only_the_atoms_are_known() -> None:
    """Centred on its mass, linear where its atoms lie on a line."""
    line = np.array([[1.0, 0.0, 0.0], [2.16, 0.0, 0.0], [-0.16, 0.0, 0.0]])
    carbon_dioxide = Gas.of_atoms(np.array([6, 8, 8]), line)
    assert carbon_dioxide.linear
    np.testing.assert_allclose(carbon_dioxide.masses @ carbon_dioxide.positions, 0.0, atol=1e-12)
    assert not Gas.of_atoms(np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [0.0, 0.96, 0.0]])).linear
    with pytest.raises(WorkerError, match="two atoms are closer"):
        Gas.of_atoms(np.array([8, 1]), np.zeros((2, 3)))
