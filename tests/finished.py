"""Jobs that look finished: stored nodes with inputs and retrieved files, for parsers and steps of work chains."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ExitCode
from aiida.plugins import ParserFactory

__all__ = ["finished_job", "folder_of", "parse"]


def folder_of(source: Path | Mapping[str, bytes | str]) -> orm.FolderData:
    """Return a folder node with the files of a folder, or of a mapping from name to content."""
    if isinstance(source, Path):
        return orm.FolderData(tree=str(source.absolute())).store()
    node = orm.FolderData()
    for name, content in source.items():
        data = content.encode() if isinstance(content, str) else content
        node.base.repository.put_object_from_filelike(io.BytesIO(data), name)
    return node.store()


def finished_job(
    computer: orm.Computer,
    plugin: str,
    inputs: Mapping[str, Any],
    retrieved: Path | Mapping[str, bytes | str],
    options: Mapping[str, Any] | None = None,
) -> orm.CalcJobNode:
    """Return a job with these inputs and retrieved files, ready to be parsed; namespaces as ``models__model_0``."""
    node = orm.CalcJobNode(computer=computer, process_type=f"aiida.calculations:{plugin}")
    defaults = {"resources": {"num_machines": 1}, "output_filename": "aiida.out", "parser_name": plugin}
    for key, value in {**defaults, **(options or {})}.items():
        node.set_option(key, value)
    for label, value in inputs.items():
        node.base.links.add_incoming(value.store(), link_type=LinkType.INPUT_CALC, link_label=label)
    node.store()
    folder = folder_of(retrieved)
    folder.base.links.add_incoming(node, link_type=LinkType.CREATE, link_label="retrieved")
    return node


def parse(node: orm.CalcJobNode) -> tuple[dict[str, Any], ExitCode]:
    """Return the outputs and the exit code that the job's parser gives."""
    results, calcfunction = ParserFactory(node.get_option("parser_name")).parse_from_node(
        node, store_provenance=False, retrieved_temporary_folder=None
    )
    code = ExitCode(calcfunction.exit_status or 0, calcfunction.exit_message)
    return results, code
