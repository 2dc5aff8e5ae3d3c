"""Run models and programs on the second device and on the CPU: ``python -m tests.worker.second_device.report LIBRARY``.

Writes report.json into the present folder. A process of its own, because a device cannot be taken away again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels import ideal_gas
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.programs import md, md_gcmc, md_gcmc_batch, widom
from aiida_mofmace.worker.stopping import StopRequest

from .. import test_md_gcmc_program, test_md_program, test_widom
from ..engine_fixtures import EXAMPLES
from ..test_fused import MORE
from ..test_receptive_field import KINDS, evaluator_of
from . import NAME, SecondDevice

Results = dict[str, Any]
_KINDS = ("as most", "density", "heads", "third order")  # that differ in what runs on the device
FRAMEWORK = EXAMPLES / "MIL-120_primitive_40atoms.cif"


def systems() -> list[Atoms]:
    """A crystal, loaded and empty, and a lone molecule: of different sizes."""
    framework: Any = read(FRAMEWORK)
    framework.rattle(0.1, seed=1)
    water = Atoms("OHH", [[4, 4, 4], [4.96, 4, 4], [3.76, 4.93, 4]], cell=[9, 9, 9], pbc=True)
    more = framework.repeat((1, 1, 2))
    more.rattle(0.05, seed=2)
    lone = Atoms("C", cell=[20, 20, 20], pbc=True)
    return [framework, water, lone, more]


def evaluators() -> Results:
    """Return what each kind of model differs by on the two devices, in units of the largest of the CPU's numbers."""
    found: Results = {}
    for kind in _KINDS:
        changes = (KINDS | MORE)[kind]
        for may_fuse in (True, False) if kind in ("as most", "density") else (True,):
            here, there = (evaluator_of(Path("kind.model"), may_fuse, device, **changes) for device in ("cpu", NAME))
            rows = []
            for forces, stress, given in (
                (True, True, systems()),
                (False, False, systems()),
                (True, True, systems()[2:3]),
            ):
                pairs = zip(*(each.evaluate(given, forces, stress) for each in (here, there)), strict=True)
                names = ("interaction_energy", *(("forces", "stress") if forces else ()))
                for mine, other in pairs:
                    values = [(np.asarray(getattr(each, name)) for each in (mine, other)) for name in names]
                    rows += [float(np.abs(a - b).max() / max(1.0, np.abs(a).max())) for a, b in values]
            found[f"{kind}, {there.kernels}"] = max(rows)
    return found


def memory(device: SecondDevice) -> Results:
    """Evaluate more than fits: several systems are split, one alone cannot be."""
    evaluator = MaceEvaluator(STARTER_MODEL, NAME)
    several, refusal = systems()[:1] * 8, {}
    idle, _ = device.in_use, device.most()
    expected = [each.interaction_energy for each in evaluator.evaluate(several)]
    needed = device.most() - idle
    device.limit(idle + needed // 3)
    try:
        found = [each.interaction_energy for each in evaluator.evaluate(several)]
        device.limit(idle + needed // 16)
        evaluator.evaluate(several[:1])
    except WorkerError as error:
        # As long as somebody has the error, what it holds on to is in use.
        refusal = {"kind": error.kind, "message": str(error), "held": device.in_use - idle}
    finally:
        device.limit(2**62)
    after = [each.interaction_energy for each in evaluator.evaluate(several)]
    off = max(float(np.abs(np.subtract(each, expected)).max()) for each in (found, after))
    return {"off": off, "atoms_per_batch": evaluator._atoms_per_batch, "refusal": refusal, "needed": needed}


def operations(device: SecondDevice) -> Results:
    """Count what one call starts on the device, and what is brought back."""
    found = {}
    for may_fuse in (True, False):
        evaluator = MaceEvaluator(STARTER_MODEL, NAME, may_fuse=may_fuse)
        before = device.operations, device.fetched
        evaluator.evaluate(systems())
        found[evaluator.kernels] = device.operations - before[0], device.fetched - before[1]
    return found


def mixed() -> str:
    """Return what is said of tensors on two devices."""
    import torch

    try:
        torch.ones(2, 2, device=NAME) + torch.ones(2, 2)
    except RuntimeError as error:
        return str(error)
    return ""


def checkpoint_of(folder: Path) -> Results:
    """Return the numbers that a run would go on from, flat."""
    with np.load(folder / "checkpoint.npz") as archive:
        return {name: archive[name].ravel().tolist() for name in archive.files if archive[name].dtype.kind in "if"}


def programs() -> Results:
    """Run programs on both devices; return their results and what they end in."""
    read(FRAMEWORK).write("structure.extxyz")
    files = {"model": str(STARTER_MODEL), "structure": "structure.extxyz"}
    gcmc = test_md_gcmc_program.PARAMETERS | {"steps": 10}
    own = {f"pressure_{i}": {"pressure": 1e4 * 10**i, "fugacity": 10.0 ** (8 + i), "seed": i} for i in range(3)}
    jobs: dict[str, tuple[Callable[..., Results], Results, list[str]]] = {
        "md": (md.run, test_md_program.PARAMETERS | {"steps": 12}, ["."]),
        "md_gcmc": (md_gcmc.run, gcmc, ["."]),
        "md_gcmc_batch": (md_gcmc_batch.run, gcmc | {"systems": own}, list(own)),
        "widom": (widom.run, test_widom.PARAMETERS | {"steps": 10, "equilibration_steps": 4}, ["."]),
    }
    found: Results = {}
    for name, (run, parameters, folders) in jobs.items():
        for device in ("cpu", NAME):
            inputs = {"seed": 1, "device": device, "dtype": "float64", "files": files, "parameters": parameters}
            results = run(inputs, StopRequest())
            found[f"{name} on {device}"] = {
                "results": results,
                "states": [checkpoint_of(Path(each)) for each in folders],
            }
    return found


def main() -> None:
    device = SecondDevice(Path(sys.argv[1]))
    ideal_gas._EQUILIBRATION_SWEEPS = 2
    report: Results = {
        "mixed": mixed(),
        "memory": memory(device),
        "evaluators": evaluators(),
        "operations": operations(device),
        "programs": programs(),
    }
    report["names"] = device.names
    Path("report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
