from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.descriptors import SoapSettings, average_soap, close_contacts
from aiida_mofmace.worker.kernels.frames import Frames

from .selection_fixtures import trajectory, water_box

SETTINGS = SoapSettings(r_cut=4.0, n_max=3, l_max=2)
SPECIES = [1, 6, 8]


def test_descriptor_does_not_change_under_rotation_and_renumbering() -> None:
    atoms = water_box(np.random.default_rng(0))
    turned = atoms.copy()
    turned.rotate(37.0, (1, 2, 3), rotate_cell=True)
    mixed = atoms[[4, 2, 0, 5, 1, 3]]
    other = water_box(np.random.default_rng(1))
    first, second, third, fourth = average_soap(Frames.from_atoms([atoms, turned, mixed, other]), SETTINGS, SPECIES)
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
    framework = average_soap(frames, SETTINGS, SPECIES, "framework")
    everything = average_soap(frames, SETTINGS, SPECIES, "all")
    np.testing.assert_allclose(framework[2], framework[1], rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(everything[2] - everything[1]) > 0.01
    assert np.linalg.norm(framework[1] - framework[0]) > 0.01


def test_streaming_reports_every_chunk() -> None:
    done: list[int] = []
    features = average_soap(trajectory(0, 130, "md"), SETTINGS, SPECIES, on_chunk=done.append)
    assert done == [64, 128, 130]
    assert np.all(np.isfinite(features))


def test_close_contacts_count_periodic_images() -> None:
    apart = Atoms("O2", positions=[[0, 0, 0], [0, 0, 3]], cell=[6, 6, 6], pbc=True)
    across = Atoms("O2", positions=[[0, 0, 0.2], [0, 0, 5.9]], cell=[6, 6, 6], pbc=True)
    frames = Frames.from_atoms([apart, across])
    assert close_contacts(frames, 0.5).tolist() == [False, True]
    assert close_contacts(frames, 0.0).tolist() == [False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rcut": 5.0}, "rcut"), ({"average": "off"}, "inner"), ({"r_cut": 0.5}, "out of range")],
)
def test_bad_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(WorkerError, match=message) as error:
        SoapSettings.from_parameters({"r_cut": 4.0, "n_max": 3, "l_max": 2} | change)
    assert error.value.kind == "bad_input"
