"""Active learning: explore with the committee, label what it is unsure of, train it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, if_, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.validators import first_message, gas_elements
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import MaceModelData

from .checks import check_learning, check_loadings, check_model
from .committee_base import CommitteeBaseWorkChain
from .diversity_select_base import DiversitySelectBaseWorkChain
from .fine_tune_committee import FineTuneCommitteeWorkChain
from .functions import add_round, gather_failures, with_labels
from .harvest import reason, runs_with_frames
from .inputs import common_inputs, training_inputs
from .isolated_atoms import IsolatedAtomsWorkChain, isolated_atoms_inputs, with_atomic_energies
from .jobs import child_seed, committee_inputs, gcmc_inputs, label_inputs, md_inputs, md_key, select_inputs
from .label import LabelWorkChain
from .mace_md_base import MaceMdBaseWorkChain
from .md_gcmc_base import MdGcmcBaseWorkChain
from .ports import define_code, define_label_ports, define_replay_ports, define_system_ports, given
from .protocols import filled_builder, resolve
from .window import RollingWindow
from .worker_base import layer_inputs

__all__ = ["ActiveLearningWorkChain"]

CONVERGED, MAX_ROUNDS, NO_CANDIDATES, ABOVE_WINDOW = "converged", "max_rounds", "no_candidates", "above_window"


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse unknown elements, loadings that do not fit, two levels of theory, and a level without its program."""
    if not {"structure", "gas", "foundation", "level", "parameters", "seed", "dataset"} <= set(inputs):
        return None
    structure, gas, level = inputs["structure"], inputs["gas"], LevelOfTheory.from_dict(inputs["level"].get_dict())
    parameters = inputs["parameters"].get_dict()
    loadings, distance = parameters["active_learning"]["loadings"], parameters["md"]["insertion_minimum_distance"]
    return first_message(
        [
            check_model(inputs["foundation"], structure, gas),
            check_loadings(structure, gas, loadings, distance, inputs["seed"].value),
            check_learning(inputs, parameters, level, inputs["dataset"].n_frames),
        ]
    )


class ActiveLearningWorkChain(RollingWindow):
    """Rounds of exploration, choice, labels and training, until the committee agrees with itself.

    Each round explores with the committee's first model at every loading and by hybrid MD-GCMC, keeps the frames whose
    force deviation (equation 1 of the paper) lies in the window, labels the most diverse of them, and trains a new
    committee from the foundation model on all labels so far. With ``calibrate_deviation`` the deviation is first scaled
    to the size of the error that the committee makes on its test frames.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        define_code(spec, "worker_code")
        define_label_ports(spec)
        define_system_ports(spec, "active_learning, fine_tune, selection, labels, md, gcmc, evaluation and resources")
        define_replay_ports(spec)
        spec.input("dataset", valid_type=LabelledDatasetData, help="Labels to begin with; all later ones go behind.")
        spec.input_namespace(
            "models",
            dynamic=True,
            required=False,
            valid_type=MaceModelData,
            help="Committee to begin with, trained on the dataset; without it one is trained first.",
        )
        spec.input(
            "calibration", valid_type=orm.Dict, required=False, help="Of the models to begin with, where it is used."
        )
        spec.inputs.validator = validate_inputs
        spec.output("dataset", valid_type=LabelledDatasetData, help="All labels, those of the last round at the end.")
        spec.output_namespace("models", dynamic=True, valid_type=MaceModelData, help="Last committee: model_0 etc.")
        spec.output(
            "calibration", valid_type=orm.Dict, required=False, help="Of the last committee, on its test frames."
        )
        spec.output("learning_curve", valid_type=orm.Dict, help="Labels, errors in meV and Å, deviations by round.")
        spec.output("stop_reason", valid_type=orm.Str, help="converged, max_rounds, no_candidates or above_window.")
        spec.output("failures", valid_type=orm.Dict, help="Labels that could not be had, with reason.")
        spec.outline(
            cls.setup,
            if_(cls.should_run_atoms)(cls.run_atoms, cls.inspect_atoms),
            if_(cls.should_train_first)(cls.run_training, cls.inspect_training),
            while_(cls.should_run_round)(
                cls.start_round,
                while_(cls.should_explore)(cls.run_exploration),
                cls.inspect_exploration,
                cls.run_committee,
                cls.inspect_committee,
                if_(cls.has_candidates)(cls.run_selection, cls.inspect_selection),
                if_(cls.has_selection)(cls.run_labels, cls.inspect_labels, cls.run_training, cls.inspect_training),
            ),
            cls.results,
        )
        spec.exit_code(301, "ERROR_TRAINING_FAILED", message="Training in round {number} failed: {message}")
        spec.exit_code(302, "ERROR_EXPLORATION_FAILED", message="Too few explorations of round {number} gave frames.")
        spec.exit_code(303, "ERROR_COMMITTEE_FAILED", message="The evaluation of round {number} failed: {message}")
        spec.exit_code(304, "ERROR_SELECTION_FAILED", message="The selection of round {number} failed: {message}")
        spec.exit_code(305, "ERROR_LABELS_FAILED", message="The labels of round {number} failed: {message}")
        spec.exit_code(306, "ERROR_ATOMS_FAILED", message="The energies of the isolated atoms failed: {message}")
        above = "All {count} frames that round {number} is unsure of lie above the window: label more, or widen it."
        spec.exit_code(701, "WARNING_ABOVE_WINDOW", message=above)

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        structure: orm.StructureData,
        dataset: LabelledDatasetData,
        gas: str | orm.Dict = "CO2",
        model: MaceModelData | str | Path | None = None,
        *,
        models: Mapping[str, MaceModelData] | None = None,
        replay: tuple[orm.SinglefileData, orm.SinglefileData | None] | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol.

        :param codes: code or label of one by key: "worker", and "cp2k" unless the level is one of tblite
        :param structure: framework without gas
        :param dataset: labels to begin with
        :param gas: name of a known gas, or the description of one
        :param model: foundation model: node, path or name; None for the protocol's own
        :param models: committee trained on the dataset, to begin with
        :param replay: structures to train and to validate on alongside; None for the starter model's
        :raises ValueError: if an input is refused; the message says what to do
        """
        parameters = resolve(protocol, overrides, model)
        inputs = common_inputs(codes, structure, gas, parameters, seed) | training_inputs(model, replay, parameters)
        inputs |= {"dataset": dataset, "models": dict(models) if models else None}
        inputs["metadata"] = {"label": f"Active learning for {structure.get_formula()}"}
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Begin with the dataset, and the committee if there is one."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        self.ctx.training_parameters = self.inputs.parameters
        self.ctx.number = 0
        self.ctx.stop_reason = None
        self.ctx.dataset = self.inputs.dataset
        self.ctx.models = dict(self.inputs.models) if "models" in self.inputs else {}
        self.ctx.calibration = self.inputs.get("calibration")
        self.ctx.curve = None
        self.ctx.failures = {}

    @property
    def _round(self) -> str:
        return f"round_{self.ctx.number:02d}"

    @property
    def _worker_inputs(self) -> dict[str, Any]:
        return {"code": self.inputs.worker_code, **given(self.inputs, "structure", "gas", "seed")}

    @property
    def _calibration(self) -> dict[str, Any]:
        return {} if self.ctx.calibration is None else {"calibration": self.ctx.calibration}

    def _failure(self, label: str, message: str = "") -> ExitCode:
        """Hand out what the rounds before have brought, and return the exit code."""
        if self.ctx.models:
            self._hand_out()
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(number=str(self.ctx.number), message=message)

    def should_run_atoms(self) -> bool:
        """Whether the atomic energies are those of isolated atoms at the level of the labels."""
        return bool(self.ctx.parameters["fine_tune"]["e0s"] == "isolated_atoms")

    def run_atoms(self) -> dict[str, Any]:
        """Label one isolated atom of each element."""
        inputs = isolated_atoms_inputs(self.inputs.level, self.ctx.parameters)
        # Later rounds may bring the gas to a dataset that began with the empty framework.
        elements = {
            *self.inputs.dataset.species,
            *self.inputs.structure.get_symbols_set(),
            *gas_elements(self.inputs.gas),
        }
        inputs |= {"elements": orm.List(sorted(elements)), **given(self.inputs, "cp2k_code")}
        metadata = {"call_link_label": "isolated_atoms", "label": "Energies of isolated atoms"}
        return {"atoms": self.submit(IsolatedAtomsWorkChain, **inputs, metadata=metadata)}

    def inspect_atoms(self) -> ExitCode | None:
        """Put the energies into the parameters of all trainings."""
        node = self.ctx.atoms
        if not node.is_finished_ok:
            return self._failure("ERROR_ATOMS_FAILED", reason(node))
        self.ctx.training_parameters = with_atomic_energies(self.inputs.parameters, node.outputs.energies)
        return None

    def should_train_first(self) -> bool:
        """Whether there is no committee to begin with."""
        return not self.ctx.models

    def run_training(self) -> dict[str, Any]:
        """Train a committee from the foundation model on all labels so far."""
        key = f"{self._round}_training"
        node = self.submit(
            FineTuneCommitteeWorkChain,
            code=self.inputs.worker_code,
            dataset=self.ctx.dataset,
            seed=child_seed(self.inputs.seed, key),
            parameters=self.ctx.training_parameters,
            **given(self.inputs, "foundation", "replay_train", "replay_valid"),
            metadata={"call_link_label": key, "label": f"Committee of round {self.ctx.number}"},
        )
        return {"training": node}

    def inspect_training(self) -> ExitCode | None:
        """Take over the new committee and add a row to the learning curve."""
        node = self.ctx.training
        if not node.is_finished_ok:
            return self._failure("ERROR_TRAINING_FAILED", reason(node))
        self.ctx.models = dict(node.outputs.models)
        self.ctx.calibration = node.outputs.calibration if "calibration" in node.outputs else None
        nodes: dict[str, Any] = {"training": dict(node.outputs.results), **self._calibration}
        if self.ctx.number > 0:
            nodes |= {"exploration": self.ctx.committee.outputs.results, "failures": self.ctx.labels.outputs.failures}
        self.ctx.curve = self._add_round(**nodes)
        row = self.ctx.curve.get_dict()["rounds"][-1]
        if row["force_mae_mev_per_ang"] is not None:
            self.report(
                f"round {self.ctx.number}: {row['n_labels']} labels, errors on {row['subset']} frames "
                f"{row['energy_mae_mev_per_atom']:.2f} meV/atom and {row['force_mae_mev_per_ang']:.1f} meV/Å"
            )
        return None

    def should_run_round(self) -> bool:
        """Whether nothing has ended the rounds yet."""
        if self.ctx.stop_reason is None and self.ctx.number >= self.ctx.parameters["active_learning"]["max_rounds"]:
            self.ctx.stop_reason = MAX_ROUNDS
        return self.ctx.stop_reason is None

    def start_round(self) -> None:
        """Name the explorations of this round: MD at each loading, hybrid MD-GCMC at each pressure."""
        self.ctx.number += 1
        section = self.ctx.parameters["active_learning"]
        self.ctx.explorations = {
            md_key(section["temperature"], loading, f"{self._round}_"): {"loading": loading}
            for loading in section["loadings"]
        }
        for index, pressure in enumerate(section["pressures"]):
            self.ctx.explorations[f"{self._round}_gcmc_{index:02d}"] = {"pressure": pressure}
        self.open_window(list(self.ctx.explorations), self.ctx.parameters["resources"]["max_concurrent"])

    def should_explore(self) -> bool:
        """Whether an exploration is still to be done."""
        return self.window_is_open()

    def run_exploration(self) -> dict[str, Any]:
        """Run as many explorations at a time as the resources allow."""
        return self.advance_window(self.submit_exploration)

    def submit_exploration(self, key: str) -> orm.ProcessNode:
        """Submit one exploration with the first model of the committee."""
        parameters, section = self.ctx.parameters, self.ctx.parameters["active_learning"]
        what = {"run": section, "model": self.ctx.models[min(self.ctx.models)], **self.ctx.explorations[key]}
        if "pressure" in what:
            inputs = gcmc_inputs(key, self._worker_inputs, parameters, steps=section["steps"], **what)
            return self.submit(MdGcmcBaseWorkChain, layer_inputs(inputs, "gcmc", section["max_restarts"]))
        inputs = md_inputs(key, self._worker_inputs, parameters, temperature=section["temperature"], **what)
        return self.submit(MaceMdBaseWorkChain, layer_inputs(inputs, "md", section["max_restarts"]))

    def inspect_exploration(self) -> ExitCode | None:
        """Keep the frames of the explorations; those that tripped a guard of the hybrid MD-GCMC as well."""
        nodes = self.window_results()
        explored = runs_with_frames(self, nodes)
        if len(explored) < max(1, self.ctx.parameters["active_learning"]["min_success_fraction"] * len(nodes)):
            return self._failure("ERROR_EXPLORATION_FAILED")
        self.ctx.trajectories = {key: node.outputs.trajectory for key, node in explored.items()}
        holes = {f"{key}_holes": node.outputs.candidates for key, node in nodes.items() if "candidates" in node.outputs}
        self.ctx.trajectories |= holes
        return None

    def run_committee(self) -> dict[str, Any]:
        """Let all members evaluate the explored frames."""
        window = self.ctx.parameters["active_learning"]["window"]
        inputs = committee_inputs(
            f"{self._round}_committee",
            self.inputs.worker_code,
            self.ctx.parameters,
            models=self.ctx.models,
            frames=self.ctx.trajectories,
            window=window,
            calibration=self._scaling(),
        )
        return {"committee": self.submit(CommitteeBaseWorkChain, layer_inputs(inputs))}

    def _scaling(self) -> orm.Dict | None:
        """Return the calibration to scale the deviation with, None to take the deviation as it is."""
        wanted, calibration = self.ctx.parameters["active_learning"]["calibrate_deviation"], self.ctx.calibration
        if wanted and (calibration is None or calibration["ratio"] is None):
            self.report(f"round {self.ctx.number}: WARNING: no deviation on the test frames, so nothing to scale with")
            return None
        return calibration if wanted else None

    def inspect_committee(self) -> ExitCode | None:
        """See how many frames the committee is unsure of, and whether that ends the rounds."""
        node = self.ctx.committee
        if not node.is_finished_ok:
            return self._failure("ERROR_COMMITTEE_FAILED", reason(node))
        results = node.outputs.results.get_dict()
        unsure = results["inside"] + results["above"]
        self.report(
            f"round {self.ctx.number}: {results['inside']} of {results['n_frames']} frames in the window, "
            f"{results['below']} below, {results['above']} above"
        )
        if unsure < self.ctx.parameters["active_learning"]["converged_fraction"] * results["n_frames"]:
            self.ctx.stop_reason = CONVERGED
        elif "candidates" not in node.outputs:
            self.ctx.stop_reason = NO_CANDIDATES if results["inside"] else ABOVE_WINDOW
        return None

    def has_candidates(self) -> bool:
        """Whether there is something to choose from."""
        return self.ctx.stop_reason is None

    def run_selection(self) -> dict[str, Any]:
        """Choose the most diverse candidates, away from what the dataset holds."""
        inputs = select_inputs(
            f"{self._round}_selection",
            self._worker_inputs,
            self.ctx.parameters,
            trajectories={f"{self._round}_candidates": self.ctx.committee.outputs.candidates},
            n_select=self.ctx.parameters["active_learning"]["n_select"],
            dataset=self.ctx.dataset,
        )
        return {"selection": self.submit(DiversitySelectBaseWorkChain, layer_inputs(inputs))}

    def inspect_selection(self) -> ExitCode | None:
        """See what was chosen; candidates that are all known already end the rounds."""
        node = self.ctx.selection
        if node.exit_status == DiversitySelectBaseWorkChain.exit_codes.ERROR_NOTHING_NEW.status:
            self.ctx.stop_reason = NO_CANDIDATES
        elif not node.is_finished_ok:
            return self._failure("ERROR_SELECTION_FAILED", reason(node))
        selected = 0 if self.ctx.stop_reason else len(node.outputs.results["selected"])
        inside = self.ctx.committee.outputs.results["inside"]
        self.report(f"round {self.ctx.number}: {selected} of {inside} frames in the window selected")
        return None

    def has_selection(self) -> bool:
        """Whether there is something to label."""
        return self.ctx.stop_reason is None

    def run_labels(self) -> dict[str, Any]:
        """Label the chosen structures."""
        structures = dict(self.ctx.selection.outputs.structures)
        inputs = label_inputs(f"{self._round}_labels", self.inputs, self.ctx.parameters, structures)
        return {"labels": self.submit(LabelWorkChain, inputs)}

    def inspect_labels(self) -> ExitCode | None:
        """Put the new labels behind the dataset, those of a round with too few of them as well."""
        node = self.ctx.labels
        self.ctx.failures |= {self._round: node.outputs.failures} if "failures" in node.outputs else {}
        selected = self.ctx.selection.outputs
        self.ctx.dataset = with_labels(self.ctx.dataset, selected.results, dict(selected.structures), node.outputs)
        return None if node.is_finished_ok else self._failure("ERROR_LABELS_FAILED", reason(node))

    def results(self) -> ExitCode | None:
        """Hand out dataset, committee, learning curve and the reason of the end."""
        if self.ctx.stop_reason != MAX_ROUNDS:
            # The round that ended it all has explored, but trained nothing.
            exploration = self.ctx.committee.outputs.results
            self.ctx.curve = self._add_round(exploration=exploration)
        self._hand_out()
        self.out("stop_reason", orm.Str(self.ctx.stop_reason).store())
        self.report(f"active learning ended in round {self.ctx.number}: {self.ctx.stop_reason}")
        if self.ctx.stop_reason != ABOVE_WINDOW:
            return None
        code: ExitCode = self.exit_codes.WARNING_ABOVE_WINDOW
        return code.format(number=self.ctx.number, count=exploration["above"])

    def _add_round(self, **nodes: Any) -> orm.Dict:
        earlier = {} if self.ctx.curve is None else {"curve": self.ctx.curve}
        curve: orm.Dict = add_round(orm.Int(self.ctx.number), self.ctx.dataset, **earlier, **nodes)
        return curve

    def _hand_out(self) -> None:
        self.out("dataset", self.ctx.dataset)
        self.out("models", dict(self.ctx.models))
        self.out_many(self._calibration)
        self.out("learning_curve", self.ctx.curve if self.ctx.curve is not None else self._add_round())
        self.out("failures", gather_failures(**self.ctx.failures))
