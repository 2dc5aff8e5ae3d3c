"""All of it: from a framework and a gas to a fine-tuned potential and an isotherm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, if_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChain, WorkChainSpec

from aiida_mofmace.calculations.validators import check_training_size, first_message
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import UNTRAINED, MaceModelData

from .active_learning import ActiveLearningWorkChain
from .checks import (
    check_lammps_of_run,
    check_learning,
    check_loadings,
    check_model,
    check_monte_carlo,
    check_one_cell,
    check_repeats,
    check_rigid_gas,
)
from .diversity_select_base import DiversitySelectBaseWorkChain
from .functions import gather_failures, with_labels
from .harvest import reason
from .inputs import common_inputs, lammps_inputs, monte_carlo_inputs, training_inputs
from .isotherm import MDGCMCIsothermWorkChain
from .jobs import UFF_GROUP, child_seed, label_inputs, lone_gas_group, select_inputs
from .label import LabelWorkChain
from .ports import (
    define_code,
    define_label_ports,
    define_lammps_ports,
    define_monte_carlo_ports,
    define_replay_ports,
    define_system_ports,
    given,
)
from .protocols import DEFAULT_PROTOCOL, filled_builder, resolve
from .sampling import SamplingWorkChain
from .validation import ValidationWorkChain
from .worker_base import layer_inputs

__all__ = ["MofMaceWorkChain"]

_SYSTEM = ("structure", "gas", "parameters")
_LABELS = ("worker_code", "cp2k_code", "level")
_REPLAY = ("foundation", "replay_train", "replay_valid")
_MONTE_CARLO = ("raspa_code", "charges")
_LAMMPS = ("lammps_code", "lammps_model")
_UFF = "uff_isotherm"


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse unknown elements, loadings that do not fit, two levels of theory, and a level without its program."""
    if not {"structure", "gas", "foundation", "level", "parameters", "seed"} <= set(inputs):
        return None
    structure, gas, level = inputs["structure"], inputs["gas"], LevelOfTheory.from_dict(inputs["level"].get_dict())
    parameters = inputs["parameters"].get_dict()
    sections = ("sampling", "active_learning", "validation", "aimd")
    loadings = [loading for section in sections for loading in parameters[section]["loadings"]]
    loadings += [parameters["heat_of_adsorption"]["n_molecules"], parameters["isotherm"]["initial_loading"]]
    distance = parameters["md"]["insertion_minimum_distance"]
    return first_message(
        [
            check_monte_carlo(inputs),
            check_lammps_of_run(inputs),
            check_rigid_gas(parameters["gcmc"], gas),
            check_repeats(parameters["sampling"]["supercell"]) or check_one_cell(inputs),
            level.refusal(structure),
            check_model(inputs["foundation"], structure, gas),
            check_loadings(structure, gas, loadings, distance, inputs["seed"].value),
            check_learning(inputs, parameters, level, _fewest_labels(inputs.get("dataset"), parameters)),
        ]
    )


def _fewest_labels(dataset: LabelledDatasetData | None, parameters: Mapping[str, Any]) -> int:
    """Return how many labels the first training will have at least, if all goes well with the sampling."""
    if dataset is not None:
        return int(dataset.n_frames)
    wanted = sum(_first_quotas(parameters, "").values())
    return int(parameters["labels"]["min_success_fraction"] * wanted)


def _first_quotas(
    parameters: Mapping[str, Any], gas: str, *, untrained: bool = False, monte_carlo: bool = False
) -> dict[str, int]:
    """Return how many structures of each loading are labelled first, by a pattern of the names of the groups.

    :param untrained: whether the model knows nothing yet, not even the lone gas molecule
    :param monte_carlo: whether there are snapshots of UFF, whose loadings no MD run need have
    """
    first, sampling = parameters["initial_set"], parameters["sampling"]
    quotas = {
        f"*_{loading}{gas}": first["n_per_loading"] if loading else first["n_empty"] for loading in sampling["loadings"]
    }
    quotas |= {f"{UFF_GROUP}_*": first["n_uff"]} if monte_carlo else {}
    return quotas | ({lone_gas_group(gas): sampling["rattled_gas_frames"]} if untrained else {})


class MofMaceWorkChain(WorkChain):
    """Sample, choose, label, learn actively, validate, and compute isotherm and heat of adsorption.

    What an earlier part has brought is handed out even when a later one fails; the exit code names that part. Where
    charges of the framework and RASPA are given, the isotherm of UFF and a rigid framework is computed beside the rest,
    and its snapshots are sampled from.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        define_code(spec, "worker_code")
        define_label_ports(spec)
        define_system_ports(spec, "of all parts (that is all)")
        define_replay_ports(spec)
        define_monte_carlo_ports(spec)
        define_lammps_ports(spec)
        spec.input(
            "dataset",
            valid_type=LabelledDatasetData,
            required=False,
            help="Labels to begin with; sampling, first choice and first labels are left out then.",
        )
        spec.input("protocol", valid_type=orm.Str, required=False, help="Name of the protocol of the parameters.")
        spec.inputs.validator = validate_inputs
        learned = ("dataset", "models", "calibration", "learning_curve", "stop_reason")
        spec.expose_outputs(ActiveLearningWorkChain, include=learned)
        spec.expose_outputs(ValidationWorkChain, namespace="validation", namespace_options={"required": False})
        spec.expose_outputs(MDGCMCIsothermWorkChain)
        spec.output(_UFF, valid_type=orm.Dict, required=False, help="Isotherm of the rigid framework by UFF.")
        spec.output("failures", valid_type=orm.Dict, required=False, help="Labels that could not be had, with reason.")
        spec.outline(
            cls.setup,
            if_(cls.should_sample)(
                cls.run_sampling,
                cls.inspect_sampling,
                cls.run_selection,
                cls.inspect_selection,
                cls.run_labels,
                cls.inspect_labels,
            ),
            cls.run_active_learning,
            cls.inspect_active_learning,
            cls.run_validation,
            cls.inspect_validation,
            cls.run_isotherm,
            cls.inspect_isotherm,
            cls.results,
        )
        spec.exit_code(301, "ERROR_SAMPLING_FAILED", message="Sampling failed: {message}")
        spec.exit_code(302, "ERROR_SELECTION_FAILED", message="The first selection failed: {message}")
        spec.exit_code(303, "ERROR_LABELS_FAILED", message="The first labels failed: {message}")
        spec.exit_code(304, "ERROR_ACTIVE_LEARNING_FAILED", message="Active learning failed: {message}")
        spec.exit_code(305, "ERROR_VALIDATION_FAILED", message="There is a model, but its validation failed: {message}")
        spec.exit_code(306, "ERROR_ISOTHERM_FAILED", message="There is a model, but its isotherm failed: {message}")
        spec.exit_code(701, "WARNING_ISOTHERM", message="All parts are done, but look at the isotherm: {message}")
        spec.exit_code(
            702, "WARNING_ACTIVE_LEARNING", message="All parts are done, but do not trust the model: {message}"
        )

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        structure: orm.StructureData,
        gas: str | orm.Dict = "CO2",
        model: MaceModelData | str | Path | None = None,
        *,
        charges: orm.List | Sequence[float] | None = None,
        lammps_model: orm.SinglefileData | str | Path | None = None,
        dataset: LabelledDatasetData | None = None,
        replay: tuple[orm.SinglefileData, orm.SinglefileData | None] | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol.

        :param codes: code or label of one by key: "worker"; "cp2k" unless the level is one of tblite; "raspa" for UFF;
            "lammps" for a LAMMPS of your own to sample with
        :param structure: framework without gas
        :param gas: name of a known gas, or the description of one
        :param model: foundation model: node, path or name; None for the protocol's own
        :param charges: of the framework's atoms in e, for the isotherm of UFF; None to do without
        :param lammps_model: the foundation model as the code "lammps" reads it; None for mofmace-lmp
        :param dataset: labels to begin with, of the protocol's level of theory
        :param replay: structures to train and to validate on alongside; None for the starter model's
        :param protocol: "fast" (default), "balanced" or "paper"
        :param overrides: changes of the protocol, nested like its file
        :param seed: from which the seeds of all jobs are made
        :raises ValueError: if an input is refused; the message says what to do
        """
        parameters = resolve(protocol, overrides, model)
        inputs = common_inputs(codes, structure, gas, parameters, seed) | training_inputs(model, replay, parameters)
        name = protocol or DEFAULT_PROTOCOL
        label = f"{structure.get_formula()} and {inputs['gas']['name']}, protocol {name}"
        inputs |= monte_carlo_inputs(codes, charges) | lammps_inputs(codes, lammps_model)
        inputs |= {"dataset": dataset, "protocol": orm.Str(name), "metadata": {"label": label}}
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Begin with the dataset if there is one."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        self.ctx.dataset = self.inputs.get("dataset", None)
        self.ctx.sampling = None
        self.ctx.failures = {}
        self.ctx.exit_code = None

    def _seed(self, key: str) -> orm.Int:
        return child_seed(self.inputs.seed, key)

    def _exit(self, label: str, node: orm.ProcessNode) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(message=reason(node))

    def should_sample(self) -> bool:
        """Whether there are no labels to begin with."""
        return self.ctx.dataset is None

    def run_sampling(self) -> dict[str, Any]:
        """Explore with the foundation model."""
        inputs = {
            "code": self.inputs.worker_code,
            "model": self.inputs.foundation,
            "seed": self._seed("sampling"),
            **given(self.inputs, *_SYSTEM, *_MONTE_CARLO, *self._lammps("sampling"), "cp2k_code", "level"),
            "metadata": {"call_link_label": "sampling", "label": "Sampling with the foundation model"},
        }
        return {"sampling": self.submit(SamplingWorkChain, inputs)}

    def _lammps(self, section: str) -> tuple[str, ...]:
        """Return the names of code and model of a LAMMPS of one's own where a section of the parameters asks for it."""
        return _LAMMPS if self.inputs.parameters[section]["engine"] == "lammps" else ()

    def inspect_sampling(self) -> ExitCode | None:
        """See whether there are frames to choose from."""
        node = self.ctx.sampling
        self.out_many(given(node.outputs, _UFF))
        return None if node.is_finished_ok else self._exit("ERROR_SAMPLING_FAILED", node)

    def run_selection(self) -> dict[str, Any]:
        """Choose the first structures, so many of each loading."""
        quotas = _first_quotas(
            self.ctx.parameters,
            self.inputs.gas["name"],
            untrained=self.inputs.foundation.kind == UNTRAINED,
            monte_carlo="charges" in self.inputs,
        )
        inputs = select_inputs(
            "selection",
            {"code": self.inputs.worker_code, "seed": self.inputs.seed},
            self.ctx.parameters,
            trajectories=dict(self.ctx.sampling.outputs.trajectories),
            n_select=sum(quotas.values()),
            quotas=quotas,
        )
        return {"selection": self.submit(DiversitySelectBaseWorkChain, layer_inputs(inputs))}

    def inspect_selection(self) -> ExitCode | None:
        """See whether there are structures to label."""
        node = self.ctx.selection
        if not node.is_finished_ok:
            return self._exit("ERROR_SELECTION_FAILED", node)
        results = node.outputs.results
        self.report(f"{len(results['selected'])} of {results['pool']} frames selected")
        return None

    def run_labels(self) -> dict[str, Any]:
        """Label the first structures."""
        inputs = label_inputs("labels", self.inputs, self.ctx.parameters, dict(self.ctx.selection.outputs.structures))
        return {"labels": self.submit(LabelWorkChain, inputs)}

    def inspect_labels(self) -> ExitCode | None:
        """Make the first dataset."""
        node = self.ctx.labels
        if "failures" in node.outputs:
            self.ctx.failures["first"] = node.outputs.failures
        selected = self.ctx.selection.outputs
        dataset = with_labels(None, selected.results, dict(selected.structures), node.outputs)
        if "aimd" in self.ctx.sampling.outputs:
            dataset = self._with_ab_initio(dataset, self.ctx.sampling.outputs.aimd)
        self.ctx.dataset = dataset
        code: ExitCode | None = None
        if not node.is_finished_ok:
            code = self._exit("ERROR_LABELS_FAILED", node)
        elif message := check_training_size(dataset.n_frames if dataset else 0, self.ctx.parameters["fine_tune"]):
            code = self.exit_codes.ERROR_LABELS_FAILED.format(message=message)
        if code is not None:
            self.out_many({"dataset": dataset} if dataset else {})
            self.out("failures", gather_failures(**self.ctx.failures))
        return code

    def _with_ab_initio(self, dataset: LabelledDatasetData | None, aimd: Mapping[str, Any]) -> Any:
        """Put the frames of ab initio MD, which are labels already, behind the first labels."""
        if "labels" not in aimd:
            return dataset
        both = with_labels(dataset, aimd["selection"], dict(aimd["structures"]), aimd)
        taken, before = (0 if each is None else each.n_frames for each in (both, dataset))
        self.report(f"{taken - before} of {len(aimd['labels'])} labels from ab initio MD are taken, {taken} in all")
        return both

    def run_active_learning(self) -> dict[str, Any]:
        """Train, explore, label and train again."""
        inputs = {
            "dataset": self.ctx.dataset,
            "seed": self._seed("active_learning"),
            **given(self.inputs, *_SYSTEM, *_LABELS, *_REPLAY),
            "metadata": {"call_link_label": "active_learning", "label": "Active learning"},
        }
        return {"active_learning": self.submit(ActiveLearningWorkChain, inputs)}

    def inspect_active_learning(self) -> ExitCode | None:
        """Hand out dataset and models, whatever comes later."""
        node = self.ctx.active_learning
        if "failures" in node.outputs:
            self.ctx.failures["active_learning"] = node.outputs.failures
        outputs = self.exposed_outputs(node, ActiveLearningWorkChain)
        self.out_many({"dataset": self.ctx.dataset, **outputs})
        if node.exit_status == ActiveLearningWorkChain.exit_codes.WARNING_ABOVE_WINDOW.status:
            self.report(f"WARNING: {node.exit_message}")
            self.ctx.exit_code = self._exit("WARNING_ACTIVE_LEARNING", node)
            return None
        return None if node.is_finished_ok else self._exit("ERROR_ACTIVE_LEARNING_FAILED", node)

    def run_validation(self) -> dict[str, Any]:
        """Compare both models with labels of frames that neither has seen."""
        inputs = {
            "foundation": self.inputs.foundation,
            "models": dict(self.ctx.active_learning.outputs.models),
            "seed": self._seed("validation"),
            **given(self.inputs, *_SYSTEM, *_LABELS),
            "metadata": {"call_link_label": "validation", "label": "Validation"},
        }
        return {"validation": self.submit(ValidationWorkChain, inputs)}

    def inspect_validation(self) -> None:
        """Hand out errors and parity data; a validation that failed keeps nobody from the isotherm."""
        node = self.ctx.validation
        self.out_many(self.exposed_outputs(node, ValidationWorkChain, namespace="validation"))
        if "failures" in node.outputs:
            self.ctx.failures["validation"] = node.outputs.failures
        if not node.is_finished_ok:
            self.report(f"validation {reason(node)}; going on to the isotherm")
            self.ctx.exit_code = self._exit("ERROR_VALIDATION_FAILED", node)

    def run_isotherm(self) -> dict[str, Any]:
        """Compute isotherm and heat of adsorption with the committee's first model."""
        models = self.ctx.active_learning.outputs.models
        inputs = {
            "code": self.inputs.worker_code,
            "model": models[min(models)],
            "seed": self._seed("isotherm"),
            **given(self.inputs, *_SYSTEM, *self._lammps("gcmc")[:1]),
            "metadata": {"call_link_label": "isotherm", "label": "Isotherm"},
        }
        submitted = {"isotherm": self.submit(MDGCMCIsothermWorkChain, inputs)}
        if self.ctx.sampling is None and "charges" in self.inputs:
            submitted["uff"] = self._submit_uff()
        return submitted

    def _submit_uff(self) -> orm.ProcessNode:
        """Compute the isotherm of UFF, which is the sampling's task where there is one."""
        from .uff_isotherm import UffIsothermWorkChain  # needs the extra `uff`, which all the rest does not

        inputs = {"code": self.inputs.raspa_code, "charges": self.inputs.charges, **given(self.inputs, *_SYSTEM)}
        inputs |= {"seed": self._seed(_UFF), "metadata": {"call_link_label": _UFF}}
        return self.submit(UffIsothermWorkChain, inputs)

    def inspect_isotherm(self) -> None:
        """Hand out what there is of isotherms and heat of adsorption."""
        node = self.ctx.isotherm
        if "uff" in self.ctx and "isotherm" in self.ctx.uff.outputs:
            self.out(_UFF, self.ctx.uff.outputs.isotherm)
        self.out_many(self.exposed_outputs(node, MDGCMCIsothermWorkChain))
        is_warning = node.is_finished and node.exit_status // 100 == 7
        earlier = self.ctx.exit_code
        if not node.is_finished_ok and (earlier is None or (earlier.status // 100 == 7 and not is_warning)):
            self.ctx.exit_code = self._exit("WARNING_ISOTHERM" if is_warning else "ERROR_ISOTHERM_FAILED", node)

    def results(self) -> ExitCode | None:
        """Hand out the table of failed labels and say which part failed, if any."""
        self.out("failures", gather_failures(**self.ctx.failures))
        exit_code: ExitCode | None = self.ctx.exit_code
        return exit_code
