"""Fixtures for all tests: a temporary profile, codes, small structures, and jobs that look finished."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from ase import Atoms
from ase.build import molecule

from aiida_mofmace.cli.setup import find_raspa

pytest_plugins = ["aiida.tools.pytest_fixtures"]

FIXTURES = Path(__file__).parent / "fixtures"
#: Files that take minutes, the longest first: begun last, they would leave all processes but one with nothing to do.
LONG = (
    "test_end_to_end.py",
    "test_fine_tune.py",
    "test_worker_jobs.py",
    "test_uff_isotherm.py",
    "test_cp2k_label_base.py",
    "test_mace_md_base.py",
    "test_md_gcmc_base.py",
    "test_ranks.py",
    "test_fused.py",
    "test_fine_tune_program.py",
    "test_label_daemon.py",
    "test_lammps_md.py",
    "test_sampling.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long files (with ``--no-loadscope-reorder``, or pytest-xdist orders them by number of tests)."""
    ranks = {name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(LONG)))


def _structure(atoms: Atoms, edge: float) -> orm.StructureData:
    atoms.set_cell([edge, edge, edge])
    atoms.center()
    atoms.pbc = True
    atoms.set_tags(None)
    return orm.StructureData(ase=atoms)


@pytest.fixture
def water(aiida_profile: Any) -> orm.StructureData:
    """H2O in a cubic box of 8 Å, bonds as in the gas."""
    return _structure(molecule("H2O"), 8.0)


@pytest.fixture
def carbon_dioxide(aiida_profile: Any) -> orm.StructureData:
    """CO2 in a cubic box of 8 Å, bonds as in the gas."""
    return _structure(molecule("CO2"), 8.0)


@pytest.fixture
def cp2k_code(aiida_code_installed: Callable[..., orm.InstalledCode]) -> orm.InstalledCode:
    """The real CP2K."""
    path = shutil.which("cp2k.psmp")
    if path is None:
        pytest.skip("CP2K IS NOT INSTALLED: no cp2k.psmp in the PATH; install it with: apt-get install cp2k")
    return aiida_code_installed(
        label="cp2k", default_calc_job_plugin="cp2k", filepath_executable=path, prepend_text="export OMP_NUM_THREADS=1"
    )


@pytest.fixture
def worker_code(aiida_code_installed: Callable[..., orm.InstalledCode]) -> orm.InstalledCode:
    """The Python interpreter that runs the tests, as the one that runs the worker."""
    return aiida_code_installed(
        label="worker", default_calc_job_plugin="mofmace.mace_md", filepath_executable=sys.executable
    )


@pytest.fixture
def raspa_code(aiida_code_installed: Callable[..., orm.InstalledCode]) -> orm.InstalledCode:
    """The real RASPA of the environment."""
    path = find_raspa()
    if path is None:
        pytest.skip("RASPA IS NOT INSTALLED: install it with: make uff")
    return aiida_code_installed(label="raspa", default_calc_job_plugin="raspa", filepath_executable=path)


@pytest.fixture
def options() -> dict[str, Any]:
    """Scheduler options of a short serial job."""
    resources = {"num_machines": 1, "num_mpiprocs_per_machine": 1, "num_cores_per_mpiproc": 1}
    return {"resources": resources, "max_wallclock_seconds": 600}
