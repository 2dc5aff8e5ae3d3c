"""Binding energies of a gas molecule at given sites of a framework, by a model and by labels of the same structures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, WorkChain, calcfunction, if_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from ase import Atoms

from aiida_mofmace.calculations.validators import first_message
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.protocols import load_sites

from .binding_sites_base import BindingSitesBaseWorkChain
from .checks import check_code_for_level, check_model
from .harvest import reason
from .inputs import common_inputs, foundation_model
from .jobs import binding_inputs, label_inputs
from .label import LabelWorkChain
from .label_references import binding_energy
from .ports import define_code, define_label_ports, define_system_ports
from .protocols import filled_builder, resolve
from .structural_functions import validate_sites
from .worker_base import layer_inputs

__all__ = ["BindingSitesWorkChain"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse elements that the model does not know, and labels without their program."""
    if not {"structure", "gas", "model", "level", "parameters"} <= set(inputs):
        return None
    messages = [check_model(inputs["model"], inputs["structure"], inputs["gas"])]
    if inputs["parameters"]["binding_sites"]["labels"]:
        level = LevelOfTheory.from_dict(inputs["level"].get_dict())
        messages.append(check_code_for_level(level, inputs.get("cp2k_code")))
    return first_message(messages)


@calcfunction
def relaxed_structures(trajectory: FramesData) -> dict[str, orm.StructureData]:
    """Return each relaxed structure by the name of its group, the molecule in the cell of the framework.

    The same cell makes errors of the grid and of the images cancel in a binding energy of labels.
    """
    frames = trajectory.get_frames()
    images = {frames.groups[index]: frames.atoms(index) for index in range(len(frames))}
    cell = next(image.cell.array for name, image in images.items() if name != "molecule")
    molecule = images["molecule"]
    middle = cell.sum(axis=0) / 2 - molecule.positions.mean(axis=0)
    images["molecule"] = Atoms(molecule.numbers, molecule.positions + middle, cell=cell, pbc=True)
    return {
        name: orm.StructureData(ase=Atoms(i.numbers, i.positions, cell=i.cell, pbc=True)) for name, i in images.items()
    }


@calcfunction
def assemble_binding(results: orm.Dict, sites: orm.Dict, **labelled: orm.Dict) -> orm.Dict:
    """Return the table of binding energies: by the model, by labels where there are some, and the published ones.

    :param results: of the relaxation
    :param sites: definition, perhaps with ``published``: energies in kJ/mol by unit and site, and their source
    :param labelled: of :func:`~aiida_mofmace.workflows.label_references.binding_energy`, by name of unit and site
    """
    published = sites.get_dict().get("published") or {}
    rows = []
    for row in results.get_dict()["rows"]:
        name = f"{row['unit']}_{row['guest']}"
        energy = labelled[name]["energy_kJ_per_mol"] if name in labelled else None
        known = (published.get("binding_kJ_per_mol") or {}).get(name)
        rows.append({**row, "label_kJ_per_mol": energy, "published_kJ_per_mol": known})
    level = next((node["level_of_theory"] for node in labelled.values()), None)
    return orm.Dict({"rows": rows, "level_of_theory": level, "published_source": published.get("source")})


class BindingSitesWorkChain(WorkChain):
    """E(framework + molecule) - E(framework) - E(molecule), all relaxed with the model, at each site of each unit.

    With ``binding_sites.labels`` the relaxed structures are labelled, and the table holds these energies too.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        define_code(spec, "worker_code")
        define_label_ports(spec)
        define_system_ports(spec, "binding_sites, labels, evaluation and resources")
        spec.input("model", valid_type=MaceModelData, help="Model that relaxes the structures.")
        spec.input(
            "sites",
            valid_type=orm.Dict,
            validator=validate_sites,
            help="Hydroxyl sites, structural units and guest sites, as given by load_sites(name).",
        )
        spec.inputs.validator = validate_inputs
        spec.output(
            "table", valid_type=orm.Dict, help="A row for each unit and site: energies in kJ/mol, what relaxed."
        )
        spec.output_namespace(
            "structures", dynamic=True, valid_type=orm.StructureData, help="Relaxed structures: UNIT_GUEST and parts."
        )
        spec.outline(
            cls.run_relaxations,
            cls.inspect_relaxations,
            if_(cls.should_run_labels)(cls.run_labels, cls.inspect_labels),
            cls.results,
        )
        spec.exit_code(301, "ERROR_RELAXATIONS_FAILED", message="The relaxations failed: {message}")
        spec.exit_code(701, "WARNING_NOT_RELAXED", message="Not at a minimum: {names}; raise binding_sites.max_steps.")
        spec.exit_code(702, "WARNING_LABELS_FAILED", message="There are no labels of the relaxed structures: {message}")

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        structure: orm.StructureData,
        sites: str | Path | orm.Dict,
        gas: str | orm.Dict = "CO2",
        model: MaceModelData | str | Path | None = None,
        *,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol; arguments as in :class:`StructuralUnitsWorkChain`.

        :param codes: code or label of one by key: "worker", and "cp2k" for labels by CP2K
        """
        parameters = resolve(protocol, overrides)
        inputs = common_inputs(codes, structure, gas, parameters, seed)
        inputs |= {
            "sites": sites if isinstance(sites, orm.Dict) else orm.Dict(load_sites(sites)),
            "model": foundation_model(model, parameters),
            "metadata": {"label": f"Binding sites of {structure.get_formula()}"},
        }
        return filled_builder(cls, inputs)

    def run_relaxations(self) -> dict[str, Any]:
        """Relax everything in one job."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        self.ctx.labelled = {}
        self.ctx.label_failure = ""
        inputs = binding_inputs("relaxations", self.inputs, self.ctx.parameters)
        return {"relaxations": self.submit(BindingSitesBaseWorkChain, layer_inputs(inputs))}

    def inspect_relaxations(self) -> ExitCode | None:
        """Hand the relaxed structures out."""
        node = self.ctx.relaxations
        if not node.is_finished_ok:
            code: ExitCode = self.exit_codes.ERROR_RELAXATIONS_FAILED
            return code.format(message=reason(node))
        self.ctx.structures = relaxed_structures(node.outputs.trajectory)
        self.out("structures", self.ctx.structures)
        return None

    def should_run_labels(self) -> bool:
        """Whether the relaxed structures are to be labelled."""
        return bool(self.ctx.parameters["binding_sites"]["labels"])

    def run_labels(self) -> dict[str, Any]:
        """Label the relaxed structures."""
        inputs = label_inputs("labels", self.inputs, self.ctx.parameters, dict(self.ctx.structures))
        return {"labels": self.submit(LabelWorkChain, inputs)}

    def inspect_labels(self) -> None:
        """Compute binding energies of the labels that could be had."""
        node = self.ctx.labels
        if not node.is_finished_ok:
            self.ctx.label_failure = reason(node)
            return
        labels = dict(node.outputs.labels)
        for row in self.ctx.relaxations.outputs.results["rows"]:
            name, framework = f"{row['unit']}_{row['guest']}", f"framework_{row['unit']}"
            if {name, framework, "molecule"} <= set(labels):
                self.ctx.labelled[name] = binding_energy(labels[name], labels[framework], labels["molecule"])

    def results(self) -> ExitCode | None:
        """Put the table together; say what is not at a minimum."""
        table = assemble_binding(self.ctx.relaxations.outputs.results, self.inputs.sites, **self.ctx.labelled)
        self.out("table", table)
        for row in table["rows"]:
            self.report(f"{row['unit']} {row['guest']}: {row['energy_kJ_per_mol']:.1f} kJ/mol")
        if self.ctx.label_failure:
            return self._exit("WARNING_LABELS_FAILED", message=self.ctx.label_failure)
        loose = ", ".join(f"{row['unit']} {row['guest']}" for row in table["rows"] if not row["relaxed"])
        return self._exit("WARNING_NOT_RELAXED", names=loose) if loose else None

    def _exit(self, label: str, **values: str) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(**values)
