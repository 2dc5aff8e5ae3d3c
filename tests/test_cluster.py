"""The main job on a Slurm cluster behind SSH, as docs/howto/slurm.md says, with CP2K and the worker over there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiida import orm

from .slurm_cluster import missing, slurm_cluster
from .test_end_to_end import check_dataset, check_isotherm, check_models, run_main

GPU = "#SBATCH --gres=gpu:1"


@pytest.fixture
def cluster(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    aiida_profile_clean: Any,
    aiida_computer: Callable[..., orm.Computer],
) -> Iterator[orm.Computer]:
    """A computer with Slurm, reached by SSH."""
    if missing():
        pytest.skip(f"NO SLURM CLUSTER CAN BE MADE HERE, it lacks {', '.join(missing())}")
    home = tmp_path / "home"
    folder = tmp_path / "cluster"
    folder.mkdir()
    with slurm_cluster(folder, home) as host:
        monkeypatch.setenv("HOME", str(home))
        computer = aiida_computer(
            label="cluster",
            hostname=host,
            transport_type="core.ssh_async",
            scheduler_type="core.slurm",
            configuration_kwargs={"host": host, "safe_interval": 0.0, "use_login_shell": False},
        )
        computer.set_workdir(str(tmp_path / "scratch"))
        computer.set_mpirun_command(["srun", "-n", "{tot_num_mpiprocs}"])
        computer.set_minimum_job_poll_interval(1.0)
        yield computer


def code(computer: orm.Computer, label: str, plugin: str, path: str, **options: Any) -> orm.InstalledCode:
    return orm.InstalledCode(
        label=label, computer=computer, default_calc_job_plugin=plugin, filepath_executable=path, **options
    ).store()


@pytest.mark.slow
@pytest.mark.cp2k
def test_main_job_on_a_cluster(cluster: orm.Computer, water: orm.StructureData) -> None:
    cp2k = shutil.which("cp2k.psmp")
    if cp2k is None:
        pytest.skip("CP2K IS NOT INSTALLED: no cp2k.psmp in the PATH; install it with: apt-get install cp2k")
    codes = {
        "worker": code(cluster, "worker", "mofmace.mace_md", sys.executable, with_mpi=False),
        "cp2k": code(cluster, "cp2k", "cp2k", cp2k, with_mpi=False, prepend_text="export OMP_NUM_THREADS=1"),
    }
    node = run_main(codes, water, resources={"worker_options": {"custom_scheduler_commands": GPU}})
    check_dataset(node)
    check_models(node)
    check_isotherm(node)
    jobs = [called for called in node.called_descendants if isinstance(called, orm.CalcJobNode)]
    assert {job.computer.label for job in jobs} == {"cluster"}
    numbers = [int(job.get_job_id()) for job in jobs]
    assert len(set(numbers)) == len(jobs) > 30
    for job in jobs:
        script = job.base.repository.get_object_content("_aiidasubmit.sh")
        assert (GPU in script) == (job.inputs.code.label == "worker")
        assert "#SBATCH --time=" in script
