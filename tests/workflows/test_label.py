"""Labels for several structures, on the real codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiida import engine, orm
from aiida.common.links import LinkType
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from plumpy import LoadSaveContext

from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.workflows.label import LabelWorkChain


def overlapping(structure: orm.StructureData) -> orm.StructureData:
    """The structure with two atoms on top of one another, which CP2K refuses."""
    atoms = structure.get_ase()
    atoms.positions[1] = atoms.positions[0] + [0.0, 0.0, 1e-4]
    return orm.StructureData(ase=atoms)


def level(name: str = "gfn1-xtb") -> orm.Dict:
    return orm.Dict(LevelOfTheory.load(name).to_dict())


def children(node: orm.ProcessNode) -> dict[str, orm.ProcessNode]:
    links = node.base.links.get_outgoing(link_type=(LinkType.CALL_WORK, LinkType.CALL_CALC)).all()
    return {link.link_label: link.node for link in links}


@pytest.mark.cp2k
def test_one_of_three_fails_and_the_others_are_had(
    cp2k_code: orm.InstalledCode,
    water: orm.StructureData,
    carbon_dioxide: orm.StructureData,
    options: dict[str, Any],
) -> None:
    structures = {"b_overlap": overlapping(water), "c_water": water, "a_carbon_dioxide": carbon_dioxide}
    outputs, node = engine.run_get_node(
        LabelWorkChain,
        structures=structures,
        level=level(),
        cp2k_code=cp2k_code,
        max_concurrent=orm.Int(2),
        min_success_fraction=orm.Float(0.6),
        options=orm.Dict(options),
    )
    assert node.is_finished_ok, node.exit_message
    assert sorted(outputs["labels"]) == ["a_carbon_dioxide", "c_water"]
    assert outputs["labels"]["c_water"].formula == "H2O"
    assert outputs["labels"]["c_water"].structure.uuid == water.uuid
    assert outputs["labels"]["a_carbon_dioxide"].symbols == carbon_dioxide.get_ase().get_chemical_symbols()
    failures = outputs["failures"].get_dict()
    assert list(failures) == ["b_overlap"]
    assert failures["b_overlap"]["exit_status"] == 310
    assert "GEOMETRY wrong" in failures["b_overlap"]["reason"]
    called = children(node)
    assert sorted(called) == ["label_0000", "label_0001", "label_0001_rescue", "label_0002"]
    job, rescue = called["label_0001"], called["label_0001_rescue"]
    assert job.inputs.structure.uuid == structures["b_overlap"].uuid
    assert rescue.inputs.failed_run.creator.uuid == job.uuid
    assert rescue.uuid == failures["b_overlap"]["uuid"]
    assert children(rescue) == {}, "a wrong input is not tried again"
    assert called["label_0002"].label == "GFN1-xTB of c_water"
    assert called["label_0002"].ctime > min(called[key].mtime for key in ("label_0000", "label_0001"))


@pytest.mark.cp2k
def test_nothing_more_is_submitted_once_the_fraction_is_out_of_reach(
    cp2k_code: orm.InstalledCode, water: orm.StructureData, options: dict[str, Any]
) -> None:
    outputs, node = engine.run_get_node(
        LabelWorkChain,
        structures={"a_overlap": overlapping(water), "b_water": water, "c_water": water},
        level=level(),
        cp2k_code=cp2k_code,
        max_concurrent=orm.Int(1),
        min_success_fraction=orm.Float(0.9),
        options=orm.Dict(options),
    )
    assert node.exit_status == 502
    assert "None of 3 labels" in node.exit_message
    assert "GEOMETRY wrong" in node.exit_message
    assert list(children(node)) == ["label_0000", "label_0000_rescue"]
    failures = outputs["failures"].get_dict()
    assert failures["c_water"] == {
        "reason": "not tried, for too many others had failed",
        "exit_status": None,
        "uuid": None,
    }


@pytest.mark.cp2k
def test_a_failed_job_is_put_right_by_the_restart_layer(
    cp2k_code: orm.InstalledCode, water: orm.StructureData, options: dict[str, Any]
) -> None:
    content = LevelOfTheory.load("gfn1-xtb").to_dict()
    del content["hash"]
    content["cp2k_input"]["FORCE_EVAL"]["DFT"]["SCF"]["MAX_SCF"] = 3
    outputs, node = engine.run_get_node(
        LabelWorkChain,
        structures={"water": water},
        level=orm.Dict(LevelOfTheory.from_dict(content).to_dict()),
        cp2k_code=cp2k_code,
        max_concurrent=orm.Int(1),
        min_success_fraction=orm.Float(1.0),
        options=orm.Dict(options),
    )
    assert node.is_finished_ok, node.exit_message
    called = children(node)
    assert called["label_0000"].exit_status == 450
    (again,) = children(called["label_0000_rescue"]).values()
    assert again.inputs.rescue.get_list() == ["direct mixing in smaller steps"]
    assert outputs["labels"]["water"].creator.uuid == again.uuid
    assert outputs["labels"]["water"].flags == ["scf_remedy: direct mixing in smaller steps"]


@pytest.mark.cp2k
def test_too_few_labels_come_back_with_an_exit_code(
    cp2k_code: orm.InstalledCode, water: orm.StructureData, options: dict[str, Any]
) -> None:
    outputs, node = engine.run_get_node(
        LabelWorkChain,
        structures={"a_water": water, "b_overlap": overlapping(water)},
        level=level(),
        cp2k_code=cp2k_code,
        max_concurrent=orm.Int(2),
        min_success_fraction=orm.Float(1.0),
        options=orm.Dict(options),
    )
    assert node.exit_status == 501
    assert "Only 1 of 2 labels" in node.exit_message
    assert list(outputs["labels"]) == ["a_water"]
    assert list(outputs["failures"].get_dict()) == ["b_overlap"]


def test_a_checkpoint_does_not_grow_with_the_structures(cp2k_code: orm.InstalledCode, water: orm.StructureData) -> None:
    """What the graph knows is not written again for every label, and comes back from there."""
    runner = get_manager().get_runner()
    sizes = []
    for count in (2, 30):
        structures = {f"frame_{i:04d}": orm.StructureData(ase=water.get_ase()) for i in range(count)}
        builder = LabelWorkChain.get_builder_from_protocol({"cp2k": cp2k_code}, structures)
        process = instantiate_process(runner, builder)
        process.setup()
        process.ctx.window["finished"] = {"label_0000": 7}
        runner.persister.save_checkpoint(process)
        sizes.append(len(process.node.checkpoint))
    assert sizes[1] - sizes[0] < 28 * 50, "a UUID alone has 36 characters, in two sets of inputs"
    again = runner.persister.load_checkpoint(process.pid).unbundle(LoadSaveContext(runner=runner, loop=runner.loop))
    for inputs, same in ((again.inputs, process.inputs), (again.raw_inputs, process.raw_inputs)):
        assert set(inputs) == set(same)
        assert {key: node.uuid for key, node in inputs.structures.items()} == {
            key: node.uuid for key, node in same.structures.items()
        }
    assert again.ctx.window == process.ctx.window
    assert again.names == process.names
    assert again.inputs.level.uuid == process.inputs.level.uuid


def test_labels_by_tblite(
    worker_code: orm.InstalledCode,
    water: orm.StructureData,
    carbon_dioxide: orm.StructureData,
    options: dict[str, Any],
) -> None:
    pytest.importorskip("tblite", reason="TBLITE IS NOT INSTALLED: pip install 'tblite>=0.4'")
    outputs, node = engine.run_get_node(
        LabelWorkChain,
        structures={"water": water, "carbon_dioxide": carbon_dioxide},
        level=level("gfn1-xtb-tblite"),
        worker_code=worker_code,
        max_concurrent=orm.Int(1),
        min_success_fraction=orm.Float(1.0),
        options=orm.Dict(options),
    )
    assert node.is_finished_ok, node.exit_message
    assert outputs["failures"].get_dict() == {}
    assert {key: label.level_of_theory["program"] for key, label in outputs["labels"].items()} == {
        "water": "tblite",
        "carbon_dioxide": "tblite",
    }
    called = children(node)
    assert called["label_0001"].ctime >= called["label_0000"].mtime


def test_a_label_that_was_killed_is_reported(aiida_localhost: orm.Computer) -> None:
    from aiida_mofmace.workflows.label import _failure

    node = orm.CalcJobNode(computer=aiida_localhost)
    node.set_option("resources", {"num_machines": 1})
    node.store()
    node.set_process_state(engine.ProcessState.KILLED)
    assert _failure(node) == "it was killed"


def test_builder_from_protocol(cp2k_code: orm.InstalledCode, water: orm.StructureData) -> None:
    builder = LabelWorkChain.get_builder_from_protocol(
        {"cp2k": cp2k_code},
        {"a": water},
        overrides={"resources": {"cores": 4, "max_concurrent": 5, "cp2k_options": {"queue_name": "short"}}},
    )
    assert builder.level["name"] == "GFN1-xTB"
    assert builder.max_concurrent == 5
    assert builder.options["queue_name"] == "short"
    # The same as in a whole run.
    assert builder.options["resources"] == {"num_machines": 1, "num_mpiprocs_per_machine": 4}


def test_builder_refuses(
    cp2k_code: orm.InstalledCode, worker_code: orm.InstalledCode, water: orm.StructureData
) -> None:
    build = LabelWorkChain.get_builder_from_protocol
    with pytest.raises(ValueError, match=r"is computed by cp2k: give codes\['cp2k'\]"):
        build({"worker": worker_code}, {"a": water})
    with pytest.raises(ValueError, match=r"did you mean 'resources\.max_concurrent'"):
        build({"cp2k": cp2k_code}, {"a": water}, overrides={"resources": {"max_concurent": 2}})
    with pytest.raises(ValueError, match="unknown level of theory 'pbe'"):
        build({"cp2k": cp2k_code}, {"a": water}, overrides={"level": "pbe"})
    builder = build({"cp2k": cp2k_code}, {"a": water})
    with pytest.raises(ValueError, match=r"set up for mofmace\.mace_md; give a code of CP2K"):
        builder.cp2k_code = worker_code
    with pytest.raises(ValueError, match="max_concurrent is 0; give at least 1"):
        builder.max_concurrent = orm.Int(0)
    with pytest.raises(ValueError, match="give a number from 0 to 1"):
        builder.min_success_fraction = orm.Float(1.5)


@pytest.fixture
def refusal(cp2k_code: orm.InstalledCode, water: orm.StructureData) -> Callable[..., str | None]:
    """Return what the work chain says to good inputs with some of them changed."""

    def of(**changes: Any) -> str | None:
        inputs: dict[str, Any] = {"structures": {"a": water}, "level": level(), "cp2k_code": cp2k_code} | changes
        validator = LabelWorkChain.spec().inputs.validator
        return validator({key: value for key, value in inputs.items() if value is not None}, None)

    return of


def test_inputs_that_do_not_go_together(refusal: Callable[..., str | None], water: orm.StructureData) -> None:
    assert refusal() is None
    assert refusal(structures={}) == "no structure: give at least one in the namespace structures"
    assert "give cp2k_code, or take another level" in str(refusal(cp2k_code=None))
    assert "give worker_code" in str(refusal(level=level("gfn1-xtb-tblite")))
    atoms = water.get_ase()
    atoms.pbc = False
    message = refusal(structures={"frame_0007": orm.StructureData(ase=atoms)})
    assert message == "frame_0007: the structure is not periodic in x, y and z; put it into a cell and set pbc"
