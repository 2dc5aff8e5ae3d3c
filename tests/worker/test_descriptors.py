from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.descriptors import (
    FAULTS,
    Environments,
    FrameDescriptor,
    SoapSettings,
    describe_all,
    faults,
)
from aiida_mofmace.worker.kernels.frames import Frames

from .selection_fixtures import trajectory, water_box

SETTINGS = SoapSettings(r_cut=4.0, n_max=3, l_max=2)
SPECIES = [1, 6, 8]


def describe(frames: Frames, environments: Environments = "all") -> np.ndarray:
    return FrameDescriptor(SETTINGS, SPECIES, environments)(frames)


def test_descriptor_does_not_change_under_rotation_and_renumbering() -> None:
    atoms = water_box(np.random.default_rng(0))
    turned = atoms.copy()
    turned.rotate(37.0, (1, 2, 3), rotate_cell=True)
    mixed = atoms[[4, 2, 0, 5, 1, 3]]
    other = water_box(np.random.default_rng(1))
    first, second, third, fourth = describe(Frames.from_atoms([atoms, turned, mixed, other]))
    assert first.dtype == np.float32
    np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(third, first, rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(fourth - first) > 1e-3 * np.linalg.norm(first)


def test_framework_environments_see_the_gas_only_as_neighbours() -> None:
    near, far = water_box(np.random.default_rng(0)), water_box(np.random.default_rng(0))
    near.set_cell([30.0] * 3)
    far.set_cell([30.0] * 3)
    far.positions[3:, 0] += 15.0
    bent = far.copy()
    bent.positions[4] += [0.3, -0.5, 0.0]
    frames = Frames.from_atoms([near, far, bent])
    framework = describe(frames, "framework")
    everything = describe(frames, "all")
    np.testing.assert_allclose(framework[2], framework[1], rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(everything[2] - everything[1]) > 0.01
    assert np.linalg.norm(framework[1] - framework[0]) > 0.01


def test_gas_environments_see_the_framework_only_as_neighbours() -> None:
    atoms, other = (water_box(np.random.default_rng(0)) for _ in range(2))
    for each in (atoms, other):
        each.set_cell([30.0] * 3)
        each.positions[3:, 0] += 15.0
    other.positions[1] += [0.3, 0.5, 0.0]  # a hydrogen of the framework, out of sight of the gas
    frames = Frames.from_atoms([atoms, other])
    gas, framework, both = (describe(frames, each) for each in ("gas", "framework", "framework_and_gas"))
    np.testing.assert_allclose(gas[1], gas[0], rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(framework[1] - framework[0]) > 0.01
    np.testing.assert_array_equal(both, np.hstack([framework, gas]))


def test_species_are_described_one_by_one() -> None:
    atoms = water_box(np.random.default_rng(0))
    found = describe(Frames.from_atoms([atoms]), "species")
    width = found.shape[1] // 3
    for number, z in enumerate(SPECIES):
        centres = Frames.from_atoms(
            [atoms[[i for i in range(6) if atoms.numbers[i] == z] + [i for i in range(6) if atoms.numbers[i] != z]]]
        )
        centres.framework_atoms[:] = (atoms.numbers == z).sum()
        np.testing.assert_allclose(
            found[0, number * width : (number + 1) * width], describe(centres, "framework")[0], rtol=1e-4, atol=1e-6
        )
    without_carbon = describe(Frames.from_atoms([atoms[[0, 1, 2]]]), "species")[0]
    assert not without_carbon[width : 2 * width].any()
    assert without_carbon[:width].any()


def test_frames_without_centres_are_told() -> None:
    loaded, empty = water_box(np.random.default_rng(0)), water_box(np.random.default_rng(0))
    empty.info["framework_atoms"] = 6
    frames = Frames.from_atoms([loaded, empty])
    assert FrameDescriptor(SETTINGS, SPECIES, "gas").has_centres(frames).tolist() == [True, False]
    assert FrameDescriptor(SETTINGS, SPECIES, "species").has_centres(frames).tolist() == [True, True]


def test_descriptors_are_the_same_from_one_process_and_from_two() -> None:
    frames = trajectory(0, 30, "md")
    chunks = [(start, frames.select(range(start, start + 10))) for start in (0, 10, 20)]
    one, two = ([*describe_all(chunks, FrameDescriptor(SETTINGS, SPECIES), processes)] for processes in (1, 2))
    assert [key for key, _ in one] == [key for key, _ in two] == [0, 10, 20]
    np.testing.assert_array_equal(np.concatenate([chunk for _, chunk in one]), np.concatenate([c for _, c in two]))


def test_faults_count_periodic_images() -> None:
    apart = Atoms("O2", positions=[[0, 0, 0], [0, 0, 3]], cell=[6, 6, 6], pbc=True)
    across = Atoms("O2", positions=[[0, 0, 0.2], [0, 0, 5.9]], cell=[6, 6, 6], pbc=True)
    lost = Atoms("O3", positions=[[0, 0, 0], [0, 0, 1], [5, 5, 5]], cell=[10, 10, 10], pbc=True)
    broken = Atoms("O2", positions=[[0, 0, 0], [0, 0, np.nan]], cell=[6, 6, 6], pbc=True)
    frames = Frames.from_atoms([apart, across, lost, broken])
    names = lambda *limits: [FAULTS[code] for code in faults(frames, *limits)]  # noqa: E731
    assert names(0.5, 4.0) == ["", "too_close", "detached", "not_finite"]
    assert names(0.5) == ["", "too_close", "", "not_finite"]
    assert names(0.0) == ["", "", "", "not_finite"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rcut": 5.0}, "rcut"), ({"average": "off"}, "inner"), ({"r_cut": 0.5}, "out of range")],
)
def test_bad_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(WorkerError, match=message) as error:
        SoapSettings.from_parameters({"r_cut": 4.0, "n_max": 3, "l_max": 2} | change)
    assert error.value.kind == "bad_input"
