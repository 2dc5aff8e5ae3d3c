"""Molecular dynamics that takes more than one job: every handler fires, and a restart changes no frame."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_mofmace.calculations.mace_md import MaceMdCalculation
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.workflows.mace_md_base import MaceMdBaseWorkChain
from aiida_mofmace.workflows.sampling import SamplingWorkChain

from .steps import finished, loaded, mil_120, process_of

OVERRIDES = {"sampling": {"temperatures": [300.0], "loadings": [2], "steps": 40, "equilibration_steps": 2, "stride": 2}}


def inputs_of(codes: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    """Inputs of one run of a sampling."""
    changed = {"sampling": {**OVERRIDES["sampling"], **overrides}}
    sampling = process_of(SamplingWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=changed, seed=5))
    sampling.setup()
    sampling.submit_md("md_300k_2")
    inputs: dict[str, Any] = sampling.submitted[-1][1]
    return inputs


@pytest.fixture
def chain(codes: dict[str, Any]) -> Any:
    process = process_of(MaceMdBaseWorkChain, **inputs_of(codes, max_restarts=2))
    process.setup()
    return process


def ended(chain: Any, label: str, outputs: dict[str, Any] | None = None) -> Any:
    """Let the process look as if a job had ended so, and inspect it."""
    code = getattr(MaceMdCalculation.exit_codes, label)
    chain.ctx.iteration += 1
    node = finished(MaceMdCalculation, outputs, exit_status=code.status, message=code.message)
    chain.ctx.children = [*chain.ctx.get("children", []), node]
    return chain.inspect_process()


def remains(*steps: int) -> dict[str, Any]:
    """What a job that was stopped has left."""
    return {
        "trajectory": FramesData.from_frames(Frames.from_atoms([loaded(2, step) for step in steps])),
        "checkpoint": orm.SinglefileData(io.BytesIO(b"state"), filename="checkpoint.npz"),
        "results": orm.Dict({"steps_done": steps[-1]}),
    }


def test_handle_stopped_early(chain: Any) -> None:
    first = remains(2, 4, 6)
    assert ended(chain, "ERROR_STOPPED_EARLY", first).status == 0
    assert chain.ctx.inputs.checkpoint.uuid == first["checkpoint"].uuid
    assert ended(chain, "ERROR_STOPPED_EARLY", remains(6, 8)).status == 0
    code = ended(chain, "ERROR_STOPPED_EARLY", remains(10))
    assert (code.status, "Only 10 of 40 steps after 3 jobs" in code.message) == (701, True)
    assert list(chain.outputs["trajectory"].get_frames().steps) == [2, 4, 6, 8, 10]
    assert chain.outputs["results"]["steps_done"] == 10


def test_handle_killed(chain: Any) -> None:
    assert ended(chain, "ERROR_NO_OUTPUT").status == 0
    assert "checkpoint" not in chain.ctx.inputs
    left = remains(2, 4)
    assert ended(chain, "ERROR_NO_OUTPUT", left).status == 0
    assert chain.ctx.inputs.checkpoint.uuid == left["checkpoint"].uuid


def test_a_job_that_is_killed_twice_at_once(chain: Any) -> None:
    assert ended(chain, "ERROR_NO_OUTPUT").status == 0
    assert ended(chain, "ERROR_NO_OUTPUT").status == 312


def test_frames_are_kept_where_a_later_job_is_killed_twice(chain: Any) -> None:
    assert ended(chain, "ERROR_STOPPED_EARLY", remains(2, 4)).status == 0
    assert ended(chain, "ERROR_NO_OUTPUT").status == 0
    code = ended(chain, "ERROR_NO_OUTPUT")
    assert (code.status, chain.outputs["trajectory"].n_frames) == (312, 2)


@pytest.mark.parametrize("label", ["ERROR_OUTPUT_UNREADABLE", "ERROR_WORKER_FAILED", "ERROR_OUTPUT_MISSING"])
def test_handle_lost_output(chain: Any, label: str) -> None:
    """What the machine may be to blame for is done once more."""
    assert ended(chain, label).status == 0
    assert ended(chain, label, remains(2, 4)).status == 313
    assert chain.outputs["trajectory"].n_frames == 2


def test_a_lost_output_with_a_checkpoint(chain: Any) -> None:
    left = remains(2, 4)
    assert ended(chain, "ERROR_OUTPUT_UNREADABLE", left).status == 0
    assert chain.ctx.inputs.checkpoint.uuid == left["checkpoint"].uuid


def test_the_last_job_that_may_be_is_killed(chain: Any) -> None:
    for steps in ((2, 4), (6, 8)):
        assert ended(chain, "ERROR_STOPPED_EARLY", remains(*steps)).status == 0
    code = ended(chain, "ERROR_NO_OUTPUT")
    assert (code.status, chain.outputs["trajectory"].n_frames) == (313, 4)


def test_handle_unknown_failure(chain: Any) -> None:
    """A failure without a remedy ends the run at once, and frames of earlier jobs are kept."""
    assert ended(chain, "ERROR_STOPPED_EARLY", remains(2, 4)).status == 0
    code = ended(chain, "ERROR_EXPLOSION")
    assert (code.status, "blew up" in code.message) == (313, True)
    assert chain.outputs["trajectory"].n_frames == 2


def test_jobs_that_meet_their_wall_time(codes: dict[str, Any]) -> None:
    """Real jobs with time for one step each give, put together, the frames of one with enough of it."""
    steps = {"steps": 3, "equilibration_steps": 0, "stride": 1}
    whole, node = run_get_node(MaceMdBaseWorkChain, **inputs_of(codes, **steps))
    assert node.is_finished_ok, node.exit_message
    short = inputs_of(codes, **steps)
    short["md"]["metadata"]["options"]["max_wallclock_seconds"] = 1
    outputs, node = run_get_node(MaceMdBaseWorkChain, **short)
    assert node.is_finished_ok, node.exit_message
    jobs = [child.exit_status for child in node.called if isinstance(child, orm.CalcJobNode)]
    assert jobs == [MaceMdCalculation.exit_codes.ERROR_STOPPED_EARLY.status] * 2 + [0]
    frames, expected = outputs["trajectory"].get_frames(), whole["trajectory"].get_frames()
    assert list(frames.steps) == [1, 2, 3]
    assert np.array_equal(frames.positions, expected.positions)
    assert outputs["results"]["steps_done"] == 3
