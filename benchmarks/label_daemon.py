"""Labels through a daemon of two workers with a CP2K that takes no time: what AiiDA costs, and what a crash loses.

python benchmarks/label_daemon.py --count 200            # CPU time of AiiDA per label
python benchmarks/label_daemon.py --count 1000 --kill 1  # SIGKILL of one worker after half of the labels
python benchmarks/label_daemon.py --count 18 --concurrent 12 --kill 2 --deaf             # that the broker overlooks
python benchmarks/label_daemon.py --count 18 --concurrent 12 --kill 2 --deaf --no-guard  # stands still
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
VERDI = str(Path(sys.executable).parent / "verdi")
HARTREE = 27.211386245988
#: Seconds without a label after which the daemon is looked at, as `mofmace status --follow` does.
PATIENCE = 30.0
#: What the broker of a daemon runs first: it does not look for dead workers in the seconds after one was killed, as if
#: the dead one still looked alive in the moment in which its connection broke.
DEAF = """
import os, sys, time
if "broker" in sys.orig_argv:
    from aiida.brokers.zeromq.server import ZeromqBrokerServer
    look = ZeromqBrokerServer._probe_workers
    def _probe_workers(self):
        killed = os.environ["KILLED"]
        if not os.path.exists(killed) or time.time() - os.path.getmtime(killed) > 10.0:
            look(self)
    ZeromqBrokerServer._probe_workers = _probe_workers
"""
#: Labels before those that are counted, for which the workers load what they need.
WARM = 8


class Meter:
    """CPU time of the daemon's processes, of those that were killed up to the last look at them."""

    def __init__(self) -> None:
        self.used: dict[int, float] = {}
        self.workers: set[int] = set()

    def look(self) -> None:
        """Read user and system time of launcher, broker and workers, and of the commands they waited for."""
        from aiida.engine.daemon.client import get_daemon_client

        self.workers.update(worker_pids())
        launcher = psutil.Process(int(get_daemon_client().get_daemon_pid() or 0))
        for process in [launcher, *launcher.children()]:
            try:
                self.used[process.pid] = sum(process.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue

    def seconds(self) -> tuple[float, float]:
        """CPU time so far in s of the workers, and of launcher, broker and whatever else belongs to the daemon."""
        of_workers = sum(used for pid, used in self.used.items() if pid in self.workers)
        return of_workers, sum(self.used.values()) - of_workers


def own_seconds() -> float:
    """CPU time of this process in s."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def verdi(*arguments: str) -> None:
    done = subprocess.run([VERDI, *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"verdi {' '.join(arguments)}: {done.stdout}{done.stderr}")


def worker_pids() -> list[int]:
    """Return the processes of the workers; none where the daemon is busy replacing one and does not answer."""
    from aiida.engine.daemon.client import get_daemon_client

    return [int(pid) for pid in get_daemon_client().get_worker_info().get("info", {})]


def submit(count: int, concurrent: int, offset: float = 0.0) -> Any:
    """Submit one work chain for water molecules that are each shifted by another length.

    :param offset: of all of them, in Å
    """
    from aiida import orm
    from aiida.engine import submit as submit_process
    from ase.build import molecule

    from aiida_mofmace.cli.setup import ensure_code
    from aiida_mofmace.workflows.label import LabelWorkChain

    code, _ = ensure_code("fake", "cp2k", str(REPOSITORY / "tests" / "bin" / "fake_cp2k"))
    structures = {}
    for index in range(count):
        water = molecule("H2O", cell=[8.0, 9.0, 8.5], pbc=True)
        water.positions += [1.0 + offset + 0.001 * index, 1.0, 1.0]
        structures[f"frame_{index:04d}"] = orm.StructureData(ase=water)
    builder = LabelWorkChain.get_builder_from_protocol({"cp2k": code}, structures)
    builder.max_concurrent = orm.Int(concurrent)
    builder.min_success_fraction = orm.Float(1.0)
    return submit_process(builder)


def wait(chain: Any, meter: Meter, kills: list[int], limit: float) -> float:
    """Wait for the end; the daemon replaces a worker that was killed, and nothing restarts it. Return the wall time.

    The broker may go on waiting for a killed worker; then the guard beside the daemon has it look again, nobody else.

    :param kills: number of labels at which a worker is killed, each time another one
    """
    from aiida import orm

    from aiida_mofmace.data.label import DftLabelData

    start, victims = time.perf_counter(), worker_pids()
    last, since = 0, start
    while not chain.is_terminated:
        meter.look()
        found = orm.QueryBuilder().append(DftLabelData).count() - WARM
        wall = time.perf_counter() - start
        if wall > limit:
            print(f"GIVEN UP after {wall:.0f} s and {found} labels", flush=True)
            return wall
        if found != last:
            last, since = found, time.perf_counter()
        elif time.perf_counter() - since > PATIENCE:
            since = time.perf_counter()
            print(f"nothing moves after {wall:.0f} s and {found} labels", flush=True)
        if kills and found >= kills[0]:
            kills.pop(0)
            Path(os.environ["KILLED"]).touch()
            os.kill(victims[0], signal.SIGKILL)
            print(f"worker {victims.pop(0)} killed after {wall:.0f} s and {found} labels", flush=True)
        time.sleep(2.0)
    meter.look()
    if kills:
        raise SystemExit(f"the end came before {len(kills)} workers could be killed")
    return time.perf_counter() - start


def check(chain: Any, count: int, runs: int, killed: int) -> bool:
    """Print what was lost and what was done twice; return whether every structure has its own label.

    A worker that is killed between the submission of a job and its note of it has another one submit that job again:
    at most one for each worker that was killed.

    :param runs: how often the fake CP2K was started
    :param killed: number of workers that were killed
    """
    from aiida import orm

    from aiida_mofmace.calculations.cp2k_label import Cp2kLabelCalculation

    labels = dict(chain.outputs.labels) if "labels" in chain.outputs else {}
    structures = chain.inputs.structures
    good = 0
    for name, label in labels.items():
        expected = HARTREE * (-5.0 - structures[name].sites[0].position[0])
        good += label.structure.uuid == structures[name].uuid and abs(label.energy - expected) < 1e-4
    jobs = orm.QueryBuilder().append(orm.StructureData, tag="structure", project="id")
    jobs.append(Cp2kLabelCalculation, with_incoming="structure")
    submitted = Counter(jobs.all(flat=True))
    known = {structure.pk for structure in structures.values()}
    submitted = Counter({pk: number for pk, number in submitted.items() if pk in known})
    doubled = sum(submitted.values()) - len(submitted)
    state = chain.process_state.value if chain.process_state else "unknown"
    print(f"work chain {state}, exit status {chain.exit_status}")
    print(f"finished {good}, lost {count - good}, doubled {doubled} (CP2K was started {runs} times)")
    in_order = list(labels) == [f"frame_{index:04d}" for index in range(count)]
    print(f"labels {'in' if in_order else 'NOT in'} the order of the structures")
    return good == count and doubled <= killed and in_order and bool(chain.is_finished_ok)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="number of labels")
    parser.add_argument("--concurrent", type=int, default=20, help="the most at work at once")
    parser.add_argument("--kill", type=int, choices=[0, 1, 2], default=0, help="how many workers are killed on the way")
    parser.add_argument("--deaf", action="store_true", help="the broker overlooks that they were killed")
    parser.add_argument("--no-guard", action="store_true", help="nothing looks after the daemon")
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds after which it is given up")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # The daemon looks for verdi in the PATH.
        path = f"{Path(VERDI).parent}{os.pathsep}{os.environ['PATH']}"
        starts = Path(folder) / "starts"
        os.environ |= {"AIIDA_PATH": folder, "PATH": path, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        os.environ |= {"FAKE_CP2K_LOG": str(starts), "KILLED": str(Path(folder) / "killed")}
        if given.deaf:
            (Path(folder) / "sitecustomize.py").write_text(DEAF)
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        from aiida_mofmace.cli.setup import ensure_computer, ensure_profile
        from aiida_mofmace.report.daemon import guard_daemon

        # What `mofmace setup` makes.
        ensure_profile("benchmark")
        ensure_computer()
        # Stopping takes long where a worker has just been killed.
        verdi("config", "set", "daemon.timeout", "60")
        verdi("daemon", "start", "2")
        guarded = not given.no_guard and guard_daemon()
        print(f"guard beside the daemon: {'put there' if guarded else 'NOT THERE'}", flush=True)
        meter = Meter()
        try:
            wait(submit(WARM, WARM, offset=-0.5), meter, [], given.limit)
            (workers, others), own = meter.seconds(), own_seconds()
            chain = submit(given.count, given.concurrent)
            own = own_seconds() - own
            kills = [(i + 1) * given.count // (given.kill + 1) for i in range(given.kill)]
            wall = wait(chain, meter, kills, given.limit)
        finally:
            verdi("daemon", "stop")
            for log in Path(folder).rglob("mofmace-guard-*.log"):
                print(log.read_text().rstrip())
        print(f"{given.count} labels, {given.concurrent} at once, 2 workers, {os.cpu_count()} cores")
        fine = check(chain, given.count, len(starts.read_text().splitlines()) - WARM, given.kill)
        print(f"{wall / given.count:.2f} s wall per label")
        of_workers, of_others = (now - before for now, before in zip(meter.seconds(), (workers, others), strict=True))
        print(
            f"CPU-s per label: {(of_workers + of_others + own) / given.count:.3f} (workers "
            f"{of_workers / given.count:.3f}, the rest of the daemon {of_others / given.count:.3f}, submission "
            f"{own / given.count:.3f})"
        )
    if not fine:
        raise SystemExit("labels are missing, or more were done twice than workers were killed")


if __name__ == "__main__":
    main()
