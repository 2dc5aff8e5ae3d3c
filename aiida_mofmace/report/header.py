"""What was run: material, gas, protocol, models, versions, and when."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aiida import orm
from aiida.common.links import LinkType

from aiida_mofmace.report.provenance import first_input, output, text
from aiida_mofmace.report.tree import ProcessTree
from aiida_mofmace.workflows.harvest import cause

__all__ = ["header"]


def header(process: orm.ProcessNode, tree: ProcessTree) -> dict[str, Any]:
    """Describe a run, with None for what its nodes do not say."""
    structure = first_input(process, "structure")
    version = process.base.attributes.get("version", {})
    return {
        "pk": process.pk,
        "uuid": process.uuid,
        "label": process.label,
        "description": process.description,
        "process": tree.root.label,
        "state": tree.root.state,
        "exit_status": process.exit_status,
        "is_well": tree.root.is_well,
        "cause": cause(process),
        "started": process.ctime,
        "ended": tree.root.mtime if tree.root.is_terminated else None,
        "wall_seconds": (tree.root.mtime - tree.root.ctime).total_seconds(),
        "gas": text(first_input(process, "gas"), "name"),
        "protocol": text(first_input(process, "protocol"), "protocol", "name"),
        "overrides": _overrides(process),
        "versions": {
            "aiida-mofmace": version.get("plugin"),
            "aiida-core": version.get("core"),
            **_worker_versions(tree),
        },
        **_structure(structure),
        **_models(process),
    }


def _overrides(process: orm.ProcessNode) -> dict[str, Any]:
    node = first_input(process, "overrides")
    return node.get_dict() if isinstance(node, orm.Dict) else {}


def _structure(node: orm.Data | None) -> dict[str, Any]:
    if not isinstance(node, orm.StructureData):
        return {"material": None, "formula": None, "counts": {}, "n_atoms": None, "volume": None, "atoms": None}
    atoms = node.get_ase()
    return {
        "material": node.label or node.get_formula("hill_compact"),
        "formula": atoms.get_chemical_formula("hill"),
        "counts": dict(Counter(atoms.get_chemical_symbols())),
        "n_atoms": len(atoms),
        "volume": float(node.get_cell_volume()),
        "atoms": atoms,
    }


def _models(process: orm.ProcessNode) -> dict[str, Any]:
    """Read the foundation model that went in and the models that came out, by attributes alone."""

    def is_model(node: orm.Node) -> bool:
        return "sha256" in node.base.attributes.all and "r_max" in node.base.attributes.all

    def read(node: orm.Node) -> dict[str, Any]:
        keys = ("kind", "sha256", "r_max", "dtype", "elements", "heads", "mace_version", "n_parameters")
        values = {key: node.base.attributes.get(key, None) for key in keys}
        return {"pk": node.pk, "uuid": node.uuid, "label": node.label, **values}

    incoming = [link.node for link in process.base.links.get_incoming().all()]
    outgoing = process.base.links.get_outgoing(link_type=LinkType.RETURN).all()
    return {
        "foundation": next((read(node) for node in incoming if is_model(node)), None),
        "models": {link.link_label: read(link.node) for link in outgoing if is_model(link.node)},
    }


def _worker_versions(tree: ProcessTree) -> dict[str, str]:
    """Return the versions that the latest trainings and simulations report."""
    own = ("FineTuneCalculation", "MdGcmcCalculation", "MaceMdCalculation", "CommitteeCalculation")
    jobs = tree.labelled(*own, "LammpsGcmcWorkChain")
    for record in reversed(jobs):
        results = output(record, "results")
        if isinstance(results, orm.Dict) and results.get_dict().get("versions"):
            return {str(key): str(value) for key, value in results.get_dict()["versions"].items() if value}
    return {}
