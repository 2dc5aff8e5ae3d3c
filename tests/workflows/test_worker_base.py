"""Jobs without a checkpoint: every handler fires, and what cannot be helped ends with the job's own words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching

from aiida_mofmace.calculations.diversity_select import DiversitySelectCalculation
from aiida_mofmace.workflows.diversity_select_base import DiversitySelectBaseWorkChain
from aiida_mofmace.workflows.jobs import select_inputs
from aiida_mofmace.workflows.protocols import resolve
from aiida_mofmace.workflows.worker_base import layer_inputs

from .steps import finished, process_of, trajectory

_LOST = ("ERROR_NO_OUTPUT", "ERROR_OUTPUT_UNREADABLE", "ERROR_WORKER_FAILED", "ERROR_OUTPUT_MISSING")


def inputs_of(code: orm.AbstractCode) -> dict[str, Any]:
    """A selection with an hour of wall time."""
    system = {"code": code, "seed": orm.Int(1)}
    parameters = resolve(overrides={"selection": {"soap": {"n_max": 3, "l_max": 1}, "pca_components": 2}})
    job = select_inputs("selection", system, parameters, trajectories={"md_300k_0": trajectory(0)}, n_select=2)
    return layer_inputs(job)


@pytest.fixture
def chain(codes: dict[str, Any]) -> Any:
    process = process_of(DiversitySelectBaseWorkChain, **inputs_of(codes["worker"]))
    process.setup()
    return process


def ended(chain: Any, label: str, outputs: dict[str, Any] | None = None) -> Any:
    """Let the process submit a job that looks as if it had ended so, and inspect it."""
    chain.run_process()
    code = getattr(DiversitySelectCalculation.exit_codes, label)
    node = finished(DiversitySelectCalculation, outputs, exit_status=code.status, message=code.message)
    chain.ctx.children = [*chain.ctx.get("children", []), node]
    return chain.inspect_process()


def submitted(chain: Any) -> dict[str, Any]:
    """Options and the like of the job that was submitted last."""
    return dict(chain.submitted[-1][1]["metadata"])


def test_a_job_is_named_by_its_layer(chain: Any) -> None:
    assert chain.node.label == "Selection of 2 diverse structures"
    chain.run_process()
    process_class, inputs = chain.submitted[-1]
    assert process_class is DiversitySelectCalculation
    assert process_class.spec().inputs.validate(inputs) is None
    assert submitted(chain)["call_link_label"] == "iteration_01"


@pytest.mark.parametrize("label", [*_LOST, "ERROR_SCHEDULER_NODE_FAILURE"])
def test_handle_lost_output(chain: Any, label: str) -> None:
    """Once it is done again; the second time the job's words stand."""
    assert ended(chain, label).status == 0
    code = ended(chain, label)
    expected = getattr(DiversitySelectCalculation.exit_codes, label)
    assert (code.status, code.message) == (expected.status, expected.message)
    assert not chain.should_run_process()


def test_handle_stopped_early(chain: Any) -> None:
    assert ended(chain, "ERROR_STOPPED_EARLY").status == 0
    code = ended(chain, "ERROR_STOPPED_EARLY")
    assert submitted(chain)["options"]["max_wallclock_seconds"] == 7200
    assert (code.status, "Stopped by" in code.message) == (400, True)


def test_one_failure_of_each_kind(chain: Any) -> None:
    """A job may be lost, and its repetition meet the wall time."""
    assert ended(chain, "ERROR_NO_OUTPUT").status == 0
    assert ended(chain, "ERROR_STOPPED_EARLY").status == 0
    assert ended(chain, "ERROR_OUTPUT_MISSING").status == 310


@pytest.mark.parametrize("label", ["ERROR_OUT_OF_MEMORY", "ERROR_NOTHING_NEW", "ERROR_BAD_INPUT"])
def test_handle_failure(chain: Any, label: str) -> None:
    """What would end the same way again ends at once, with what the job left."""
    code = ended(chain, label, {"results": orm.Dict({"pool": 6})})
    expected = getattr(DiversitySelectCalculation.exit_codes, label)
    assert (code.status, code.message) == (expected.status, expected.message)
    assert code.status == getattr(DiversitySelectBaseWorkChain.exit_codes, label).status
    assert chain.outputs["results"]["pool"] == 6


def test_a_failure_is_not_taken_from_the_cache(aiida_code_installed: Any, tmp_path: Path) -> None:
    """AiiDA may cache a job that failed: its repetition would then fail without having run."""
    error = {"type": "RuntimeError", "message": "no device"}
    output = {"status": "failed", "reason": "", "versions": {}, "wall_seconds": 1, "results": {}, "error": error}
    write = f"echo '{json.dumps(output)}' > output.json"
    code = aiida_code_installed(
        label="without-device",
        default_calc_job_plugin="mofmace.mace_md",
        filepath_executable=sys.executable,
        prepend_text=f"mkdir {tmp_path / 'down'} 2> /dev/null && {write} && exit 1",
    )
    with enable_caching(identifier="aiida.calculations:mofmace.*"):
        _, node = run_get_node(DiversitySelectBaseWorkChain, **inputs_of(code))
    assert [job.exit_status for job in node.called] == [303, 0]
    assert node.is_finished_ok
    # The frames differ by a translation alone.
    assert list(node.outputs.structures) == ["frame_0000"]


def test_outputs_are_those_of_the_job(chain: Any) -> None:
    assert ended(chain, "ERROR_NO_OUTPUT").status == 0
    chain.run_process()
    frame = orm.StructureData(cell=[[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]])
    outputs = {"results": orm.Dict({"pool": 6}), "structures": {"frame_0000": frame}, "selected": trajectory(0, 1)}
    outputs |= {"map": orm.ArrayData(), "fates": orm.ArrayData(), "retrieved": orm.FolderData()}
    chain.ctx.children = [*chain.ctx.children, finished(DiversitySelectCalculation, outputs)]
    assert chain.inspect_process() is None
    assert not chain.should_run_process()
    chain.results()
    assert chain.outputs["structures"]["frame_0000"].uuid == frame.uuid
    assert sorted(chain.outputs) == sorted(outputs)
