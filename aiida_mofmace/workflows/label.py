"""Labels for many structures: a rolling window of single points."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

from aiida import orm
from aiida.engine import ExitCode, ProcessBuilder, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.base import validate_worker_code
from aiida_mofmace.calculations.cp2k_label import Cp2kLabelCalculation, validate_cp2k_code, validate_level
from aiida_mofmace.calculations.tblite_label import TbliteLabelCalculation
from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory

from .cp2k_label_base import Cp2kLabelBaseWorkChain, cp2k_label_inputs
from .inputs import code_node
from .jobs import cp2k_options, worker_options
from .label_quality import check_labels, judge_labels, names_left_out, quality_bounds
from .label_twins import label_twin, twins
from .protocols import filled_builder, resolve
from .scheduler_options import validate_options
from .window import RollingWindow

__all__ = ["LabelWorkChain"]

_CODE_PORTS = {"cp2k": "cp2k_code", "tblite": "worker_code"}
_REPORTS = 10
_RESCUE = "_rescue"


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse a missing code, an empty set of structures, and structures that the level cannot do."""
    structures = inputs.get("structures") or {}
    if "level" not in inputs:
        return None
    level = LevelOfTheory.from_dict(inputs["level"].get_dict())
    port = _CODE_PORTS[level.program]
    if port not in inputs:
        return f"level {level.name} is computed by {level.program}: give {port}, or take another level"
    if not structures:
        return "no structure: give at least one in the namespace structures"
    for key, structure in structures.items():
        refusal = level.refusal(structure)
        if refusal:
            return f"{key}: {refusal}"
    return None


def validate_fraction(fraction: orm.Float | None, _: Any) -> str | None:
    """Refuse a fraction outside of 0 to 1."""
    if fraction is None or 0 <= fraction.value <= 1:
        return None
    return f"min_success_fraction is {fraction.value}; give a number from 0 to 1"


def validate_concurrency(number: orm.Int | None, _: Any) -> str | None:
    """Refuse a window without a place in it."""
    if number is None or number.value >= 1:
        return None
    return f"max_concurrent is {number.value}; give at least 1"


class LabelWorkChain(RollingWindow):
    """Label structures at one level of theory, never more than so many at once.

    Each label is one job; only for a job of CP2K that fails a work chain is added, the restart layer.

    A label that cannot be had is reported with its reason and left out. The work chain finishes well if at least
    ``min_success_fraction`` of the labels could be had, and stops submitting as soon as that is out of reach. Of
    structures that are equal one is computed. A label outside of the bounds is flagged.
    """

    linked_namespaces = ("structures",)

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.input_namespace(
            "structures",
            dynamic=True,
            valid_type=orm.StructureData,
            help="Periodic structures to label, positions and cells in Å, by name.",
        )
        spec.input(
            "level",
            valid_type=orm.Dict,
            validator=validate_level,
            help="Level of theory as given by LevelOfTheory.load(name).to_dict().",
        )
        spec.input(
            "cp2k_code",
            valid_type=orm.AbstractCode,
            required=False,
            validator=validate_cp2k_code,
            help="CP2K, for a level that CP2K computes.",
        )
        spec.input(
            "worker_code",
            valid_type=orm.AbstractCode,
            required=False,
            validator=validate_worker_code,
            help="Python interpreter with tblite, for a level that tblite computes.",
        )
        spec.input(
            "max_concurrent",
            valid_type=orm.Int,
            validator=validate_concurrency,
            help="The most labels at work at once.",
        )
        spec.input(
            "min_success_fraction",
            valid_type=orm.Float,
            validator=validate_fraction,
            help="Part of the labels, 0 to 1, that must be had for the work chain to finish well.",
        )
        spec.input(
            "options",
            valid_type=orm.Dict,
            required=False,
            validator=validate_options,
            help="Options of each job for the scheduler, e.g. resources and max_wallclock_seconds (s).",
        )
        spec.input(
            "bounds",
            valid_type=orm.Dict,
            required=False,
            help="Sanity filter: max_force (eV/Å), max_energy_deviation (eV/atom, from the median of a composition), "
            "minimum_distance (Å), include_flagged (whether what is outside goes into datasets); none if not given.",
        )
        spec.inputs.validator = validate_inputs
        spec.outline(cls.setup, while_(cls.should_run_labels)(cls.run_labels), cls.inspect_labels)
        spec.output_namespace(
            "labels", dynamic=True, valid_type=DftLabelData, help="Labels under the names of their structures."
        )
        spec.output(
            "failures",
            valid_type=orm.Dict,
            help="Structures without a label, by name: reason, exit_status and uuid of what failed.",
        )
        spec.output(
            "flagged",
            valid_type=orm.Dict,
            help="Labels outside of the bounds, by name: label (UUID), reasons, left_out (of datasets).",
        )
        spec.exit_code(
            501,
            "ERROR_TOO_FEW_LABELS",
            message="Only {n_labels} of {n} labels could be had, the first failure being: {reason}",
        )
        spec.exit_code(502, "ERROR_NO_LABEL", message="None of {n} labels could be had, the first failure: {reason}")
        spec.exit_code(
            503,
            "ERROR_ALL_FLAGGED",
            message="All {n} labels are outside of the bounds, the first because {reason}; look at structures and "
            "bounds, or set labels.include_flagged.",
        )

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        structures: Mapping[str, orm.StructureData],
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the inputs filled in.

        :param codes: code, or label of one, by the keys `cp2k` and `worker`; the one of the level's program is needed
        :param structures: structures to label by name
        :param protocol: name of a protocol, None for the default
        :param overrides: nested like the protocol
        :raises ValueError: if protocol, override key or value, or code is wrong
        """
        parameters = resolve(protocol, overrides)
        level = LevelOfTheory.from_protocol(parameters)
        resources = parameters["resources"]
        key = "cp2k" if level.program == "cp2k" else "worker"
        code = code_node(codes, key)
        if code is None:
            raise ValueError(f"level of theory {level.name} is computed by {level.program}: give codes[{key!r}]")
        inputs = {
            "structures": dict(structures),
            "level": orm.Dict(level.to_dict()),
            _CODE_PORTS[level.program]: code,
            "max_concurrent": orm.Int(resources["max_concurrent"]),
            "min_success_fraction": orm.Float(parameters["labels"]["min_success_fraction"]),
            "bounds": orm.Dict(quality_bounds(parameters["labels"])),
            "options": orm.Dict((cp2k_options if key == "cp2k" else worker_options)(parameters)),
        }
        return filled_builder(cls, inputs)

    @cached_property
    def names(self) -> dict[str, str]:
        """Names of the structures in alphabetical order, by the label of what computes each."""
        return {f"label_{i:04d}": key for i, key in enumerate(sorted(self.inputs.structures))}

    @cached_property
    def _parameters(self) -> dict[str, orm.Dict]:
        """Parameters that this interpreter has submitted, by their content."""
        return {}

    def setup(self) -> None:
        """Give each structure its number, in the order of their names; of equal ones only the first is submitted."""
        self.ctx.twins = twins(self.inputs.structures)
        self.ctx.level = LevelOfTheory.from_dict(self.inputs.level.get_dict()).summary
        self.ctx.n_labels = 0
        self.ctx.n_failed = 0
        unique = [label for label, key in self.names.items() if key not in self.ctx.twins]
        self.open_window(unique, self.inputs.max_concurrent.value)
        again = f", {len(self.ctx.twins)} of them the same as another" if self.ctx.twins else ""
        self.report(
            f"{len(self.names)} labels at {self.ctx.level['name']}{again}, {self.inputs.max_concurrent.value} at once"
        )

    def should_run_labels(self) -> bool:
        """Whether anything is still to be submitted or waited for."""
        return self.window_is_open()

    def run_labels(self) -> dict[str, Any]:
        """Take in what has ended and fill the free places of the window."""
        return self.advance_window(self.submit_label, self.on_label_finished)

    def submit_label(self, label: str) -> orm.ProcessNode:
        """Submit the job of one structure, or what puts a job right that has failed."""
        if label.endswith(_RESCUE):
            return self._submit_rescue(label)
        structure = self.inputs.structures[self.names[label]]
        metadata = {"call_link_label": label, "label": f"{self.ctx.level['name']} of {self.names[label]}"}
        options = self.inputs.options.get_dict() if "options" in self.inputs else {}
        if self.ctx.level["program"] == "cp2k":
            inputs = cp2k_label_inputs(self.inputs.cp2k_code, structure, self.inputs.level, options)
            inputs["parameters"] = self._shared(inputs["parameters"])
            return self.submit(Cp2kLabelCalculation, **inputs | {"metadata": inputs["metadata"] | metadata})
        return self.submit(
            TbliteLabelCalculation,
            code=self.inputs.worker_code,
            structure=structure,
            level=self.inputs.level,
            metadata=metadata | {"options": options},
        )

    def _shared(self, parameters: orm.Dict) -> orm.Dict:
        """Return one node for equal parameters: those of all frames of a system whose cell is held."""
        content = json.dumps(parameters.get_dict(), sort_keys=True)
        return self._parameters.setdefault(content, parameters)

    def _submit_rescue(self, label: str) -> orm.ProcessNode:
        """Submit the restart layer for a label whose job has failed."""
        first = label.removesuffix(_RESCUE)
        name = self.names[first]
        options = {"options": self.inputs.options} if "options" in self.inputs else {}
        return self.submit(
            Cp2kLabelBaseWorkChain,
            code=self.inputs.cp2k_code,
            structure=self.inputs.structures[name],
            level=self.inputs.level,
            failed_run=orm.load_node(self.ctx.window["finished"][first]).outputs.remote_folder,
            metadata={"call_link_label": label, "label": f"{self.ctx.level['name']} of {name}, after a failure"},
            **options,
        )

    def on_label_finished(self, label: str, node: orm.ProcessNode) -> None:
        """Count, report, put right, and submit nothing more once too many have failed."""
        if _can_be_rescued(node):
            self.enqueue(label + _RESCUE, first=True)
            return
        total, key = len(self.names), self.names[label.removesuffix(_RESCUE)]
        served = 1 + list(self.ctx.twins.values()).count(key)
        reason = _failure(node)
        if reason is None:
            self.ctx.n_labels += served
        else:
            self.ctx.n_failed += served
            self.report(f"{key} has no label: {reason}")
        done = self.ctx.n_labels + self.ctx.n_failed
        if done == total or done % math.ceil(total / _REPORTS) == 0:
            self.report(f"{done} of {total} done: {self.ctx.n_labels} labels, {self.ctx.n_failed} failed")
        if total - self.ctx.n_failed < self._wanted() and self.ctx.window["queue"]:
            self.report(f"{self._wanted()} labels are out of reach, submitting no more")
            self.close_window()

    def inspect_labels(self) -> ExitCode | None:
        """Attach the labels in the order of their names, say what failed and why, and what is out of bounds."""
        labels, failures = self._gather()
        self.out("labels", labels)
        self.out("failures", orm.Dict(failures).store())
        flagged = self._check(labels)
        self.out("flagged", flagged)
        n, wanted = len(self.names), self._wanted()
        if not labels or len(labels) < wanted:
            code = self.exit_codes.ERROR_TOO_FEW_LABELS if labels else self.exit_codes.ERROR_NO_LABEL
            reason = next(iter(failures.values()))["reason"]
            return cast(ExitCode, code.format(n=n, n_labels=len(labels), reason=reason))
        if len(names_left_out(flagged)) == len(labels):
            reason = next(iter(flagged.get_dict().values()))["reasons"][0]
            return cast(ExitCode, self.exit_codes.ERROR_ALL_FLAGGED.format(n=len(labels), reason=reason))
        return None

    def _gather(self) -> tuple[dict[str, DftLabelData], dict[str, dict[str, Any]]]:
        """Return labels and failures by name, in the order of the names."""
        labels: dict[str, DftLabelData] = {}
        failures: dict[str, dict[str, Any]] = {}
        # In the order of their labels, so that of two tries the rescue is taken.
        nodes = {self.names[label.removesuffix(_RESCUE)]: node for label, node in self.window_results().items()}
        for key in self.names.values():
            first = self.ctx.twins.get(key, key)
            node = nodes.get(first)
            reason = "not tried, for too many others had failed" if node is None else _failure(node)
            if node is None or reason is not None:
                status, uuid = (None, None) if node is None else (node.exit_status, node.uuid)
                failures[key] = {"reason": reason, "exit_status": status, "uuid": uuid}
            elif first == key:
                labels[key] = node.outputs.label
            else:
                labels[key] = label_twin(label=node.outputs.label, structure=self.inputs.structures[key])
        return labels, failures

    def _check(self, labels: dict[str, DftLabelData]) -> orm.Dict:
        """Return what the sanity filter says of the labels; where it says nothing there is nothing to compute."""
        if "bounds" not in self.inputs or not judge_labels(labels, self.inputs.bounds.get_dict()):
            return orm.Dict({}).store()
        flagged = check_labels(self.inputs.bounds, labels=labels)
        for key, row in flagged.get_dict().items():
            self.report(f"{key} is flagged: {'; '.join(row['reasons'])}")
        return flagged

    def _wanted(self) -> int:
        """Return the number of labels that must be had."""
        return math.ceil(float(self.inputs.min_success_fraction.value) * len(self.names))


def _can_be_rescued(node: orm.ProcessNode) -> bool:
    """Whether the restart layer can go on from here: a job of CP2K failed and left a folder."""
    return node.process_class is Cp2kLabelCalculation and node.is_failed and "remote_folder" in node.outputs


def _failure(node: orm.ProcessNode) -> str | None:
    """Return why a process gave no label, None if it gave one."""
    if node.is_finished_ok:
        return None if "label" in node.outputs else "it finished without a label"
    if node.is_killed:
        return "it was killed"
    if node.is_excepted:
        return str(node.exception).strip()
    return str(node.exit_message or f"exit status {node.exit_status}")
