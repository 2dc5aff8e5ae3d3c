"""Hybrid MD-GCMC that takes more than one job: it goes on from its checkpoint, and nothing of the first is lost."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.workflows.inputs import gas_node
from aiida_mofmace.workflows.jobs import gcmc_inputs
from aiida_mofmace.workflows.md_gcmc_base import MdGcmcBaseWorkChain
from aiida_mofmace.workflows.protocols import resolve
from aiida_mofmace.workflows.worker_base import layer_inputs

from .steps import finished, loaded, mil_120, process_of


def inputs_of(codes: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    """Inputs of an exploration of two steps, with a block of trials after each."""
    short = {"md_steps_per_attempt": 1, "attempts_per_block": 2, "trial_places": 20}
    job = gcmc_inputs(
        "round_01_gcmc_00",
        {"code": codes["worker"], "structure": mil_120(), "gas": gas_node("CO2"), "seed": orm.Int(3)},
        resolve(overrides={"gcmc": short, **parameters}),
        run=resolve()["active_learning"] | {"stride": 1},
        model=MaceModelData.starter(),
        pressure=1.0e5,
        steps=2,
    )
    return layer_inputs(job, "gcmc", 2)


def ended(chain: Any, label: str, *steps: int) -> Any:
    """Let the process look as if a job had ended so, with a frame, two candidates and a checkpoint of these steps."""
    code = getattr(MdGcmcCalculation.exit_codes, label)
    frames = FramesData.from_frames(Frames.from_atoms([loaded(1, step) for step in steps]))
    holes = FramesData.from_frames(Frames.from_atoms([loaded(2, step) for step in steps for _ in range(2)]))
    checkpoint = orm.SinglefileData(io.BytesIO(b"state"), filename="checkpoint.npz")
    outputs = {"trajectory": frames, "candidates": holes, "checkpoint": checkpoint}
    chain.ctx.iteration += 1
    node = finished(MdGcmcCalculation, outputs, exit_status=code.status, message=code.message)
    chain.ctx.children = [*chain.ctx.get("children", []), node]
    return chain.inspect_process()


@pytest.mark.parametrize("label", ["ERROR_STOPPED_EARLY", "ERROR_NO_OUTPUT"])
def test_an_exploration_goes_on(codes: dict[str, Any], label: str) -> None:
    chain = process_of(MdGcmcBaseWorkChain, **inputs_of(codes))
    chain.setup()
    for steps in ((1, 2), (2, 3)):
        assert ended(chain, label, *steps).status == 0
        assert chain.ctx.inputs.checkpoint.uuid == chain.ctx.children[-1].outputs.checkpoint.uuid
    assert ended(chain, "ERROR_EXPLOSION", 4).status == 313
    assert list(chain.outputs["trajectory"].get_frames().steps) == [1, 2, 3, 4]
    assert list(chain.outputs["candidates"].get_frames().steps) == [1, 1, 2, 2, 2, 2, 3, 3, 4, 4]


def test_jobs_that_meet_their_wall_time(codes: dict[str, Any]) -> None:
    """Real jobs with time for one step each give, put together, the frames and the series of one with enough of it."""
    whole, node = run_get_node(MdGcmcBaseWorkChain, **inputs_of(codes))
    assert node.is_finished_ok, node.exit_message
    outputs, node = run_get_node(MdGcmcBaseWorkChain, **inputs_of(codes, resources={"max_wallclock_seconds": 1}))
    assert node.is_finished_ok, node.exit_message
    assert [job.exit_status for job in node.called if isinstance(job, orm.CalcJobNode)] == [400, 0]
    frames, expected = outputs["trajectory"].get_frames(), whole["trajectory"].get_frames()
    assert list(frames.steps) == [1, 2]
    assert np.array_equal(frames.positions, expected.positions)
    for name in ("step", "loading", "potential_energy"):
        assert np.array_equal(outputs["timeseries"].get_array(name), whole["timeseries"].get_array(name))
