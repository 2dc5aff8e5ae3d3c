"""Closed pockets: found where Zeo++ finds them, covered whole, and nothing that can be reached is covered."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.spacegroup import crystal

from aiida_mofmace.worker.kernels.pockets import BlockingSpheres, _cover, blocking_spheres
from aiida_mofmace.worker.kernels.zeo import pore_volumes

#: Å, those of Zeo++; the probe is CO2's.
RADII = {"Si": 2.1, "O": 1.52}
PROBE = 1.525


def lta() -> Atoms:
    """Silica of the framework type LTA: cages joined by windows of 8 rings, and sodalite cages behind 6 rings."""
    basis = [(0, 0.1823, 0.3684), (0, 0.2189, 0.5), (0, 0.2947, 0.2947), (0.1103, 0.1103, 0.3443)]
    return crystal(["Si", "O", "O", "O"], basis, spacegroup=221, cellpar=[11.87] * 3 + [90] * 3)


def spheres_of(atoms: Atoms, probe: float = PROBE) -> BlockingSpheres:
    radii = np.array([RADII[symbol] for symbol in atoms.symbols])
    return blocking_spheres(np.asarray(atoms.cell.array), atoms.positions, radii, probe)


@pytest.mark.parametrize("shift", [0.0, 3.3])
def test_the_sodalite_cage_is_blocked_and_the_rest_is_not(shift: float) -> None:
    atoms = lta()
    atoms.positions += shift
    found = spheres_of(atoms)
    assert len(found.radii) == 1
    centre = (found.centres[0] * 11.87 - shift + 5.0) % 11.87 - 5.0
    assert np.abs(centre).max() < 0.15
    assert 1.5 < found.radii[0] < 2.2
    # Zeo++ has 0.0064 of the volume in pockets, from 5,000 random points for each atom.
    assert found.volume_fraction == pytest.approx(0.0064, abs=0.0004)
    assert found.text().splitlines()[0] == "1"


def test_a_small_probe_gets_everywhere_and_a_large_one_is_shut_in() -> None:
    assert len(spheres_of(lta(), 0.7).radii) == 0
    shut_in = spheres_of(lta(), 2.3)  # wider than the 8 rings
    assert shut_in.volume_fraction > 0.05
    assert np.any(shut_in.radii > 2.5)


def test_a_skewed_and_repeated_cell_has_the_same_pockets() -> None:
    atoms = lta()
    single = spheres_of(atoms)
    skewed = atoms.copy()
    skewed.set_cell(np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]]) @ atoms.cell.array)
    for other, copies in ((skewed, 1), (atoms.repeat((2, 1, 1)), 2)):
        found = spheres_of(other)
        assert len(found.radii) == copies
        assert found.volume_fraction == pytest.approx(single.volume_fraction, abs=0.0008)


def test_spheres_hold_every_place_of_the_pocket_and_none_that_is_open() -> None:
    """On another grid than the one that made them."""
    atoms, found = lta(), spheres_of(lta())
    points = np.random.default_rng(1).uniform(size=(20000, 3))
    steps = points[:, None] - atoms.get_scaled_positions()[None]
    distances = np.linalg.norm((steps - np.round(steps)) * 11.87, axis=-1)
    clearance = (distances - np.array([RADII[symbol] for symbol in atoms.symbols])).min(axis=1)
    fits = points[clearance > PROBE]
    to_cage = np.linalg.norm((fits - np.round(fits)) * 11.87, axis=1)
    in_pocket = to_cage < 3.0  # the sodalite cage is at the corner, the openings to the large cage are beyond 4 Å
    covered = to_cage < found.radii[0] + 0.1
    assert in_pocket.sum() > 50
    assert (~in_pocket).sum() > 1000
    assert covered[in_pocket].all()
    assert not covered[~in_pocket].any()


def test_a_pocket_beside_open_space() -> None:
    """A channel that is shut at its ends, 4 Å long, 1 Å from an open one: no sphere reaches over, all is covered."""
    along = np.arange(0.0, 4.01, 0.2)
    pocket = np.stack([8.0 + along, np.full(21, 10.0), np.full(21, 10.0)], axis=1)
    open_space = pocket + np.array([0.0, 1.0, 0.0])
    spheres = _cover(pocket, 2.0 - abs(along - 2.0), open_space, np.eye(3) * 20.0)
    assert len(spheres) > 1
    for centre, radius in spheres:
        assert radius < np.linalg.norm(open_space - centre, axis=1).min()
    distances = [np.linalg.norm(pocket - centre, axis=1) - radius for centre, radius in spheres]
    assert np.min(distances, axis=0).max() < 0.0


def test_a_crash_of_zeo_costs_one_more_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process is ended by a segmentation fault; then every one."""
    pytest.importorskip("pyzeo")
    framework = lta()
    expected = pore_volumes(framework, 1.5, 50)
    crashed, python = tmp_path / "crashed", tmp_path / "python"
    once = f'#!/bin/bash\nif [ ! -e {crashed} ]; then touch {crashed}; kill -SEGV $$; fi\nexec {sys.executable} "$@"\n'
    python.write_text(once)
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    assert pore_volumes(framework, 1.5, 50).radii == expected.radii
    assert crashed.exists()
    python.write_text("#!/bin/bash\nkill -SEGV $$\n")
    with pytest.raises(RuntimeError, match="Zeo\\+\\+ failed 3 times with -11"):
        pore_volumes(framework, 1.5, 50)
