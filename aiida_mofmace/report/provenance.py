"""Queries that parts of the report share: inputs and outputs of processes, by the labels of their links."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from numpy.typing import NDArray

from aiida_mofmace.report.tree import ProcessRecord, ProcessTree

__all__ = ["array", "dict_output", "first_input", "journal_name", "load", "output", "output_of", "setting", "text"]


def load(record: ProcessRecord) -> orm.ProcessNode:
    """Load the node of a process."""
    node = orm.load_node(record.pk)
    if not isinstance(node, orm.ProcessNode):
        raise TypeError(f"node {record.pk} is no process")
    return node


def first_input(process: orm.ProcessNode, *names: str) -> orm.Data | None:
    """Return the first of these inputs that is there."""
    inputs = {link.link_label: link.node for link in process.base.links.get_incoming(orm.Data).all()}
    return next((node for name in names if isinstance(node := inputs.get(name), orm.Data)), None)


def text(node: orm.Data | None, *keys: str) -> str | None:
    """Return the value of a ``Str`` or the first of these keys of a ``Dict``."""
    if isinstance(node, orm.Dict):
        content = node.get_dict()
        return next((str(content[key]) for key in keys if content.get(key) is not None), None)
    return str(node.base.attributes.get("value", "")) or None if node is not None else None


def output(record: ProcessRecord, label: str) -> orm.Data | None:
    """Return what a process gave under this label."""
    # A call may bear the label of an output: only data is asked for.
    links = load(record).base.links.get_outgoing(orm.Data, link_type=(LinkType.CREATE, LinkType.RETURN)).all()
    found = next((link.node for link in links if link.link_label == label), None)
    return found if isinstance(found, orm.Data) else None


def output_of(tree: ProcessTree, label: str, maker: str) -> orm.Data | None:
    """Return an output of the run itself, else of the latest work chain that makes it."""
    for record in (tree.root, *reversed(tree.labelled(maker))):
        node = output(record, label)
        if node is not None:
            return node
    return None


def dict_output(tree: ProcessTree, label: str, maker: str) -> dict[str, Any]:
    """Return the content of a ``Dict`` output, empty if there is none."""
    node = output_of(tree, label, maker)
    return dict(node.get_dict()) if isinstance(node, orm.Dict) else {}


def journal_name(tree: ProcessTree, record: ProcessRecord) -> str:
    """Return the names of a process and its callers below the root, as in a lab journal.

    A job in a restart layer goes by the name of that.
    """
    record = tree.journal_record(record)
    callers = [caller.name for caller in tree.callers(record) if caller.parent is not None]
    return " / ".join([*reversed(callers), record.name])


def array(node: orm.Data | None, name: str) -> NDArray[Any] | None:
    """Return an array of a node, None if either is missing."""
    if isinstance(node, orm.ArrayData) and name in node.get_arraynames():
        return node.get_array(name)
    return None


def setting(record: ProcessRecord, key: str) -> Any:
    """Return a parameter of a worker calculation, or of the chain that has LAMMPS do it."""
    node = first_input(load(record), "parameters", "gcmc__parameters")
    content = node.get_dict() if isinstance(node, orm.Dict) else {}
    return content.get(key, (content.get("parameters") or {}).get(key))
