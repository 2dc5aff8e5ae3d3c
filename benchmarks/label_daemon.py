"""Labels through a daemon of two workers with a CP2K that takes no time: what AiiDA costs, and what a crash loses.

python benchmarks/label_daemon.py --count 200           # CPU time of AiiDA per label
python benchmarks/label_daemon.py --count 1000 --kill   # SIGKILL of each worker, at one and two thirds of the labels
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
VERDI = str(Path(sys.executable).parent / "verdi")
HARTREE = 27.211386245988
_TICKS = os.sysconf("SC_CLK_TCK")


def verdi(*arguments: str) -> None:
    done = subprocess.run([VERDI, *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"verdi {' '.join(arguments)}: {done.stdout}{done.stderr}")


def worker_pids() -> list[int]:
    from aiida.engine.daemon.client import get_daemon_client

    return [int(pid) for pid in get_daemon_client().get_worker_info()["info"]]


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of processes and of their children that have ended."""
    used = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += sum(int(field) for field in fields[11:15]) / _TICKS
    return used


def submit(count: int, concurrent: int) -> Any:
    """Submit one work chain for water molecules that are each shifted by another length."""
    from aiida import orm
    from aiida.engine import submit as submit_process
    from ase.build import molecule

    from aiida_mofmace.workflows.label import LabelWorkChain

    code = orm.InstalledCode(
        label="fake",
        computer=orm.load_computer("localhost"),
        filepath_executable=str(REPOSITORY / "tests" / "bin" / "fake_cp2k"),
        default_calc_job_plugin="cp2k",
    ).store()
    structures = {}
    for index in range(count):
        water = molecule("H2O", cell=[8.0, 9.0, 8.5], pbc=True)
        water.positions += [1.0 + 0.001 * index, 1.0, 1.0]
        structures[f"frame_{index:04d}"] = orm.StructureData(ase=water)
    builder = LabelWorkChain.get_builder_from_protocol({"cp2k": code}, structures)
    builder.max_concurrent = orm.Int(concurrent)
    builder.min_success_fraction = orm.Float(1.0)
    return submit_process(builder)


def wait(chain: Any, kills: dict[int, int], limit: float) -> float:
    """Wait for the end; nothing restarts the daemon, which replaces a worker that was killed. Return the wall time.

    :param kills: number of labels at which each worker is killed, by its PID
    """
    from aiida import orm

    from aiida_mofmace.data.label import DftLabelData

    start, pending = time.perf_counter(), dict(kills)
    while not chain.is_terminated:
        found = orm.QueryBuilder().append(DftLabelData).count()
        if time.perf_counter() - start > limit:
            raise SystemExit(f"not finished after {limit:g} s; {found} labels")
        for victim, count in list(pending.items()):
            if found >= count:
                os.kill(victim, signal.SIGKILL)
                del pending[victim]
                print(
                    f"worker {victim} killed after {time.perf_counter() - start:.0f} s and {found} labels", flush=True
                )
        time.sleep(1.0)
    if pending:
        raise SystemExit(f"the end came before {len(pending)} workers could be killed")
    return time.perf_counter() - start


def check(chain: Any, count: int) -> None:
    """Fail unless every structure has its own label, computed once."""
    from aiida_mofmace.data.label import DftLabelData

    assert chain.is_finished_ok, chain.exit_message
    labels: dict[str, DftLabelData] = dict(chain.outputs.labels)
    assert list(labels) == [f"frame_{index:04d}" for index in range(count)], "not in the order of the inputs"
    for index, label in enumerate(labels.values()):
        assert label.structure.uuid == chain.inputs.structures[f"frame_{index:04d}"].uuid
        expected = HARTREE * (-5.0 - chain.inputs.structures[f"frame_{index:04d}"].sites[0].position[0])
        assert abs(label.energy - expected) < 1e-4, (index, label.energy, expected)
    assert len(chain.called) == count + 1, "a label was submitted twice"  # and the sanity filter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="number of labels")
    parser.add_argument("--concurrent", type=int, default=20, help="the most at work at once")
    parser.add_argument("--kill", action="store_true", help="kill each worker once on the way")
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds after which it is given up")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # The daemon looks for verdi in the PATH.
        path = f"{Path(VERDI).parent}{os.pathsep}{os.environ['PATH']}"
        os.environ |= {"AIIDA_PATH": folder, "PATH": path, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        verdi("presto", "-n", "--use-zeromq")
        # Stopping takes long where a worker has just been killed.
        verdi("config", "set", "daemon.timeout", "60")
        from aiida import load_profile

        load_profile()
        verdi("daemon", "start", "2")
        try:
            workers = worker_pids()
            before = cpu_seconds(workers)
            chain = submit(given.count, given.concurrent)
            kills = {pid: (i + 1) * given.count // 3 for i, pid in enumerate(workers)} if given.kill else {}
            wall = wait(chain, kills, given.limit)
            used = None if given.kill else cpu_seconds(worker_pids()) - before
        finally:
            verdi("daemon", "stop")
        check(chain, given.count)
        print(f"{given.count} labels, {given.concurrent} at once, 2 workers, {os.cpu_count()} cores")
        print("all there, in order, none computed twice")
        print(f"{wall / given.count:.2f} s wall per label")
        if used is not None:
            print(f"{used / given.count:.2f} s CPU of the workers per label, 0.05 s of the fake CP2K included")


if __name__ == "__main__":
    main()
