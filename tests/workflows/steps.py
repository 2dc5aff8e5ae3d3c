"""Work chains taken step by step: processes that are not run, and sub-processes that look finished."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import Process, WorkChain
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from ase import Atoms

from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.workflows.inputs import structure_from_cif

MIL_120 = Path(__file__).parents[2] / "examples" / "MIL-120_primitive_40atoms.cif"


def mil_120() -> orm.StructureData:
    """The framework of the example."""
    return structure_from_cif(MIL_120)


def process_of(builder_or_class: Any, **inputs: Any) -> Any:
    """Return a process that has not begun; what it submits is written down in ``submitted`` and not run."""
    process = instantiate_process(get_manager().get_runner(), builder_or_class, **inputs)
    process.submitted = []

    def submit(process_class: type[Process], given: Mapping[str, Any] | None = None, **more: Any) -> orm.ProcessNode:
        content = {**(given or {}), **more}
        process.submitted.append((process_class, content))
        return finished(process_class, exit_status=None)

    process.submit = submit
    return process


def finished(
    process_class: type[Process],
    outputs: Mapping[str, Any] | None = None,
    exit_status: int | None = 0,
    message: str = "",
    *,
    caller: tuple[orm.ProcessNode, str] | None = None,
) -> orm.ProcessNode:
    """Return the node of a process that looks finished (or at work, for None) with these outputs, namespaces nested.

    :param caller: process that called it, and the label of the call
    """
    is_chain = issubclass(process_class, WorkChain)
    node = orm.WorkChainNode() if is_chain else orm.CalcJobNode(computer=orm.load_computer("localhost"))
    if not is_chain:
        node.set_option("resources", {"num_machines": 1})
    node.set_process_label(process_class.__name__)
    node.set_process_state("waiting" if exit_status is None else "finished")
    if exit_status is not None:
        node.set_exit_status(exit_status)
        node.set_exit_message(message)
    if caller is not None:
        link = LinkType.CALL_WORK if is_chain else LinkType.CALL_CALC
        node.base.links.add_incoming(caller[0], link_type=link, link_label=caller[1])
    node.store()
    link_type = LinkType.RETURN if is_chain else LinkType.CREATE
    for label, value in _flat(outputs or {}):
        if is_chain:
            value.store()
        value.base.links.add_incoming(node, link_type=link_type, link_label=label)
        value.store()
    return node


def _flat(outputs: Mapping[str, Any], prefix: str = "") -> list[tuple[str, orm.Data]]:
    pairs = []
    for key, value in outputs.items():
        label = f"{prefix}{key}"
        pairs += [(label, value)] if isinstance(value, orm.Data) else _flat(value, f"{label}__")
    return pairs


def loaded(loading: int, step: int = 0) -> Atoms:
    """Water as a framework of three atoms, with CO2 beside it; each frame is a bit different."""
    atoms = Atoms("OH2", [[0.0, 0.0, 0.0], [0.0, 0.757, 0.587], [0.0, -0.757, 0.587]])
    for index in range(loading):
        shift = np.array([3.0 + 3.0 * index, 3.0, 3.0])
        atoms += Atoms("CO2", shift + np.array([[0, 0, 0], [0, 0, 1.16], [0, 0, -1.16]]))
    atoms.set_cell([12.0, 12.0, 12.0])
    atoms.pbc = True
    atoms.positions += 0.01 * step
    atoms.info = {"step": step, "loading": loading, "framework_atoms": 3, "group": f"md_300K_{loading}CO2"}
    return atoms


def trajectory(loading: int, n_frames: int = 6) -> FramesData:
    """A run at one loading."""
    return FramesData.from_frames(Frames.from_atoms([loaded(loading, step) for step in range(n_frames)]))


def label_of(structure: orm.StructureData, level: str = "gfn1-xtb", energy: float = -10.0) -> DftLabelData:
    """A label of made-up numbers."""
    symbols = structure.get_ase().get_chemical_symbols()
    forces = np.full((len(symbols), 3), 0.5)
    summary = LevelOfTheory.load(level).summary
    return DftLabelData(energy=energy, forces=forces, level_of_theory=summary, symbols=symbols)


def dataset_of(loadings: list[int], level: str = "gfn1-xtb") -> LabelledDatasetData:
    """A dataset of made-up labels."""
    structures = [orm.StructureData(ase=loaded(loading, step)).store() for step, loading in enumerate(loadings)]
    return LabelledDatasetData.from_labels(
        [(structure, label_of(structure, level).store()) for structure in structures]
    )
