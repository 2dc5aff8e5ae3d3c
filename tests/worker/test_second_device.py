"""What runs on a GPU, on a device that is as foreign to the CPU's tensors and lives in its memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .second_device import NAME, build

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="THE SECOND DEVICE IS NOT TESTED: no C++ compiler")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the models and programs gave there and on the CPU."""
    folder = tmp_path_factory.mktemp("second_device")
    command = [sys.executable, "-W", "ignore", "-m", "tests.worker.second_device.report", str(build(folder))]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_the_device_is_a_foreign_one(report: dict[str, Any]) -> None:
    """Or nothing that follows would show a tensor that was left on the CPU."""
    assert "on the same device" in report["mixed"]


def test_energies_forces_and_stresses_are_those_of_the_cpu(report: dict[str, Any]) -> None:
    """Models of several kinds, by fused layers and by their own; systems of several sizes in one call."""
    kinds = report["evaluators"]
    assert sum(kind.endswith(", fused") for kind in kinds) == 4
    assert sum(kind.endswith(", e3nn") for kind in kinds) == 2
    assert max(kinds.values()) < 1e-13


def test_a_batch_that_does_not_fit_is_split(report: dict[str, Any]) -> None:
    """With the same energies, and from then on; a system that does not fit alone is refused with its size."""
    memory = report["memory"]
    assert memory["off"] < 1e-4
    assert 40 <= memory["atoms_per_batch"] < 8 * 40
    assert memory["refusal"]["kind"] == "out_of_memory"
    assert "one system of 40 atoms" in memory["refusal"]["message"]
    assert memory["refusal"]["held"] < memory["needed"] / 100


def test_fused_layers_start_fewer_kernels_and_wait_rarely(report: dict[str, Any]) -> None:
    (fused, waits), (own, _) = (report["operations"][kernels] for kernels in ("fused", "e3nn"))
    assert fused < 0.7 * own
    assert waits < 20


def test_cuda_has_a_kernel_for_each_operation(report: dict[str, Any]) -> None:
    """A build of torch for CUDA says so itself, where there is no GPU, too; other builds go by what one has said."""
    import torch

    found = set(report["names"])
    if torch.version.cuda:
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
        assert [name for name in sorted(found) if not has_kernel(name, "CUDA")] == []
    else:
        listed = set((Path(__file__).parent / "second_device" / "cuda_kernels.txt").read_text().split())
        assert found <= listed, "run this test with a build of torch for CUDA, and list what is new"


@pytest.mark.parametrize("program", ["md", "md_gcmc", "md_gcmc_batch", "widom"])
def test_a_program_gives_what_it_gives_on_the_cpu(report: dict[str, Any], program: str) -> None:
    """To rounding, over a few steps; random numbers and trial moves are the same."""
    here, there = (report["programs"][f"{program} on {device}"] for device in ("cpu", NAME))
    assert there["results"]["device"] == NAME
    for mine, other in zip(here["states"], there["states"], strict=True):
        assert set(mine) == set(other)
        for name, values in mine.items():
            np.testing.assert_allclose(other[name], values, rtol=0, atol=1e-9, err_msg=name)
    if program != "md":
        assert moves(there["results"]) == moves(here["results"])
        assert sum(counts["evaluated"] for counts in moves(here["results"])) > 0


def moves(results: dict[str, Any]) -> list[dict[str, int]]:
    """Return what became of the trials of a program, of all its systems."""
    if "systems" in results:
        return [counts for each in results["systems"].values() for counts in moves(each["results"])]
    return list(results["acceptance"].values()) if "acceptance" in results else [results["insertions"]]


def test_a_batch_shares_its_calls_there(report: dict[str, Any]) -> None:
    here, there = (report["programs"][f"md_gcmc_batch on {device}"]["results"] for device in ("cpu", NAME))
    assert there["together"] and not here["together"]
    assert there["rounds"] == here["rounds"]
