"""The isotherm: hybrid MD-GCMC at every pressure, and the heat of adsorption from MD averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from aiida import orm
from aiida.engine import ExitCode, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.md_gcmc_batch import MdGcmcBatchCalculation
from aiida_mofmace.data.model import MaceModelData

from .adsorption import (
    assemble_heat,
    assemble_henry,
    assemble_isotherm,
    framework_mass,
    is_converged,
    judge_points,
    pool_replicas,
)
from .averages import average_job, average_names, henry_gases, is_average
from .checks import check_pressures, validate_isotherm
from .gcmc_runs import batch_inputs, chunk_process, gets_on, remains_of, run_names, was_stopped
from .harvest import reason
from .inputs import code_node, foundation_model, gas_node, lammps_inputs
from .jobs import gcmc_inputs, point_fugacity
from .ports import define_code, define_lammps_code, define_system_ports
from .protocols import filled_builder, resolve
from .window import RollingWindow

__all__ = ["MDGCMCIsothermWorkChain"]

_SECTIONS = "isotherm, heat_of_adsorption, henry_coefficient, md, gcmc, evaluation and resources"
#: Of a run: steps done, jobs in a row that brought nothing, PKs of the jobs with its last checkpoint and last results.
_BEGINNING = {"steps": 0, "stalled": 0, "state": None, "last": None}


def validate_pressures(pressures: orm.List | None, _: Any) -> str | None:
    """Refuse pressures that are not positive or not there."""
    return None if pressures is None else check_pressures(pressures.get_list())


class MDGCMCIsothermWorkChain(RollingWindow):
    """Loading of the framework with a gas or a mixture at every pressure with an error bar, and the heat of adsorption.

    Each pressure is run in chunks, each from the checkpoint of the one before, until the error of the mean loading is
    small enough or the limit of steps is met. With `replicas` several runs with seeds of their own are done at each
    pressure, chunk by chunk alongside, and it is their common mean that has to be good enough. All runs go side by
    side, in jobs of their own or all in one; one that was stopped or killed goes on from its last checkpoint.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        define_code(spec)
        define_lammps_code(spec)
        define_system_ports(spec, _SECTIONS, mixtures=True)
        spec.input("model", valid_type=MaceModelData, help="Model that gives energies and forces.")
        spec.input(
            "pressures",
            valid_type=orm.List,
            required=False,
            validator=validate_pressures,
            help="Pressures in Pa; those of the parameters if not given.",
        )
        spec.inputs.validator = validate_isotherm
        spec.output("isotherm", valid_type=orm.Dict, help="Points with standard errors, also in mol/kg.")
        spec.output_namespace(
            "timeseries",
            dynamic=True,
            valid_type=orm.ArrayData,
            help="Loading (molecules per cell) and energy (eV) against step of each run: pressure_00 and so on, with "
            "replicas pressure_00_replica_00 and so on.",
        )
        spec.output("heat_of_adsorption", valid_type=orm.Dict, required=False, help="Equation 2 of the paper, kJ/mol.")
        spec.output(
            "henry_coefficient",
            valid_type=orm.Dict,
            required=False,
            help="Loading over fugacity where both are small, mol/(kg Pa) and molecules per cell and Pa, and the heat "
            "there, kJ/mol, by name of the gas; from test-particle insertion.",
        )
        spec.outline(
            cls.setup,
            while_(cls.should_run_chunks)(cls.run_chunks),
            cls.inspect_heat,
            cls.inspect_henry,
            cls.inspect_points,
        )
        spec.exit_code(301, "ERROR_NO_POINT", message="No pressure gave a loading: {message}")
        spec.exit_code(302, "ERROR_HEAT_FAILED", message="There is an isotherm, but no heat of adsorption: {message}")
        spec.exit_code(
            701,
            "WARNING_NOT_CONVERGED",
            message="Not converged: {pressures} Pa; raise isotherm.max_steps.",
        )
        spec.exit_code(702, "WARNING_POINTS_MISSING", message="Some pressures gave no loading: {message}")
        spec.exit_code(
            703,
            "WARNING_HEAT_NOT_CONVERGED",
            message="A mean energy of the heat of adsorption is not to be relied on; raise heat_of_adsorption.steps.",
        )
        spec.exit_code(
            704,
            "WARNING_HENRY",
            message="A Henry coefficient is missing or rough, raise henry_coefficient.steps: {message}",
        )
        spec.exit_code(
            705,
            "WARNING_MODEL_HOLES",
            message="Molecules sat in holes of the model at {pressures} Pa, for up to {percent} % of their time: these "
            "loadings are not to be believed; label the candidates of the jobs and train on.",
        )

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        structure: orm.StructureData,
        gas: str | Mapping[str, float] | orm.Dict = "CO2",
        model: MaceModelData | str | Path | None = None,
        *,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol; arguments as in :class:`SamplingWorkChain`.

        :param codes: "worker", and "lammps" for mofmace-lmp as engine
        :param gas: one gas, or the mole fractions of a mixture by the names of its components
        """
        parameters = resolve(protocol, overrides)
        inputs = {
            "code": code_node(codes, "worker"),
            **lammps_inputs(codes, None),
            "structure": structure,
            "gas": gas_node(gas),
            "model": foundation_model(model, parameters),
            "seed": orm.Int(seed),
            "parameters": orm.Dict(parameters),
            "metadata": {"label": f"Isotherm of {structure.get_formula()}"},
        }
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Name the points and their runs; the runs for heat and Henry coefficient go behind them."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        self.ctx.section = section = self.ctx.parameters["isotherm"]
        gas = self.inputs.gas.get_dict()
        pressures = self.inputs.pressures if "pressures" in self.inputs else section["pressures"]
        self.ctx.mass = framework_mass(self.inputs.structure)
        self.ctx.points = {
            f"pressure_{index:02d}": {"pressure": float(pressure), "fugacity": point_fugacity(gas, pressure, section)}
            for index, pressure in enumerate(pressures)
        }
        target = min(section["chunk_steps"], section["max_steps"])
        self.ctx.runs = {
            name: {"point": point, "target": target, "chunks": 0, "reason": "", **_BEGINNING}
            for point in self.ctx.points
            for name in run_names(point, section["replicas"])
        }
        self.ctx.averages = {name: {"parts": 0, **_BEGINNING} for name in average_names(gas, self.ctx.parameters)}
        self.ctx.due = list(self.ctx.runs)  # of the runs that share a job, those that go on
        chunks = ["batch_00"] if section["batch"] else [f"{run}_chunk_00" for run in self.ctx.runs]
        self.open_window([*chunks, *self.ctx.averages], self.ctx.parameters["resources"]["max_concurrent"])

    def should_run_chunks(self) -> bool:
        """Whether a point or a run for the heat of adsorption is still to be done."""
        return self.window_is_open()

    def run_chunks(self) -> dict[str, Any]:
        """Do as many runs at a time as the resources allow."""
        return self.advance_window(self.submit_run, self.on_run_finished)

    def submit_run(self, key: str) -> orm.ProcessNode:
        """Submit a chunk of a run, or of all that go on, or a run for heat or Henry coefficient."""
        if is_average(key):
            name = key.partition("_part_")[0]
            checkpoint = _checkpoint(self.ctx.averages[name], name)
            return self.submit(*average_job(key, self.inputs, self.ctx.parameters, checkpoint))
        if not key.startswith("batch"):
            inputs = self._chunk_inputs(key.partition("_chunk_")[0])
            return self.submit(*chunk_process(inputs, self.inputs.get("lammps_code")))
        chunks = {name: self._chunk_inputs(name) for name in self.ctx.due}
        label = f"MD-GCMC of {self.inputs.gas['name']}, {len(chunks)} runs"
        inputs = batch_inputs(key, label, chunks, self.ctx.section.get("share_calls", False))
        return self.submit(MdGcmcBatchCalculation, inputs)

    def _chunk_inputs(self, name: str) -> dict[str, Any]:
        """Return the inputs of the next chunk of a run, the same whether it shares a job or not.

        A chunk goes on to a number of steps counted from the very first; one that was stopped is asked for again.
        """
        run = self.ctx.runs[name]
        return gcmc_inputs(
            f"{name}_chunk_{run['chunks']:02d}",
            self.inputs,
            self.ctx.parameters,
            run=self.ctx.section,
            model=self.inputs.model,
            pressure=self._pressure(name),
            steps=run["target"],
            checkpoint=_checkpoint(run, name),
        )

    def on_run_finished(self, key: str, node: orm.ProcessNode) -> None:
        """Take in a chunk of a run, or of several, or a run for heat or Henry coefficient."""
        if is_average(key):
            self._on_average_finished(key.partition("_part_")[0], node)
            return
        names = self.ctx.due if key.startswith("batch") else [key.partition("_chunk_")[0]]
        for name in names:
            self._take_in(name, node)
        going = self._going_on(names)
        if not key.startswith("batch"):
            for name in going:
                self.enqueue(f"{name}_chunk_{self.ctx.runs[name]['chunks']:02d}")
            return
        self.ctx.due = going
        if going:
            self.enqueue(f"batch_{int(key.rpartition('_')[2]) + 1:02d}")

    def _on_average_finished(self, name: str, node: orm.ProcessNode) -> None:
        """Go on with a run that was stopped before its end, unless it gets no further."""
        run = self.ctx.averages[name]
        run["last"] = node.pk
        outputs = {label: node.outputs[label] for label in ("results", "checkpoint") if label in node.outputs}
        gets_on(run, node, outputs, outputs["results"].get_dict() if "results" in outputs else {})
        if was_stopped(node) and run["stalled"] <= self.ctx.section["max_restarts"]:
            run["parts"] += 1
            self.enqueue(f"{name}_part_{run['parts']:02d}")

    def _take_in(self, name: str, node: orm.ProcessNode) -> None:
        """Write down how far a chunk has brought a run, or why the run ends here."""
        run = self.ctx.runs[name]
        pressure = self._pressure(name)
        outputs, results, stopped, failure = remains = remains_of(node, name)
        advanced = gets_on(run, node, outputs, results)
        run["chunks"] += 1
        if remains.has_loading and not failure:
            run["last"] = node.pk
            error = results.get("loading_error")
            bar = "" if error is None else f" ± {error:.2f}"
            loading = f"{results['mean_loading']:.2f}{bar} molecules per cell"
            self.report(f"{name}, {pressure:g} Pa: {loading} after {run['steps']} steps")
        if stopped:
            limit = self.ctx.section["max_restarts"]
            run["reason"] = f"{reason(node)}; {limit} restarts brought nothing" if run["stalled"] > limit else ""
        elif failure or results.get("explosion"):
            run["reason"] = failure or results["explosion"].get("message", "it blew up")
        elif "checkpoint" not in outputs or not advanced:
            run["reason"] = "the run could not go on"
        if run["reason"]:
            self.report(f"{name}, {pressure:g} Pa: {run['reason']}")

    def _going_on(self, names: Sequence[str]) -> list[str]:
        """Return the runs that go on now that these have ended a chunk.

        One that was stopped in the middle goes on by itself. The replicas of a pressure take up the next chunk together
        when all have done the last one and their common mean is not good enough.
        """
        going: list[str] = []
        for point in dict.fromkeys(self.ctx.runs[name]["point"] for name in names):
            alive = {name: run for name, run in self.ctx.runs.items() if run["point"] == point and not run["reason"]}
            behind = [name for name, run in alive.items() if run["steps"] < run["target"]]
            if behind:
                going += [name for name in behind if name in names]
            elif alive and not self._is_done(alive):
                for run in alive.values():
                    run["target"] = min(self.ctx.section["max_steps"], run["target"] + self.ctx.section["chunk_steps"])
                going += list(alive)
        return going

    def _is_done(self, runs: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether the replicas of a point are at the limit of steps, or their common mean is good enough."""
        if all(run["steps"] >= self.ctx.section["max_steps"] for run in runs.values()):
            return True
        results = [remains_of(run["last"], name).results for name, run in runs.items()]
        return is_converged(pool_replicas(results), self.ctx.mass, self.ctx.section)

    def inspect_heat(self) -> None:
        """Compute the heat of adsorption if its three runs came to their ends."""
        nodes = self._last_of("heat_")
        broken = {
            name: node
            for name, node in nodes.items()
            if not node.is_finished_ok or node.outputs.results.get_dict().get("explosion")
        }
        self.ctx.heat_failure = "; ".join(f"{name} {reason(node)}" for name, node in broken.items())
        self.ctx.heat_converged = True
        if broken or not nodes:
            return
        section = self.ctx.parameters["heat_of_adsorption"]
        settings = orm.Dict({key: section[key] for key in ("temperature", "n_molecules")})
        heat = assemble_heat(settings, **{name[len("heat_") :]: node.outputs.results for name, node in nodes.items()})
        self.out("heat_of_adsorption", heat)
        self.ctx.heat_converged = heat["converged"]
        error = heat["error_kJ_per_mol"]
        bar = "" if error is None else f" ± {error:.1f}"
        note = "" if heat["converged"] else ", not converged"
        self.report(f"heat of adsorption {heat['value_kJ_per_mol']:.1f}{bar} kJ/mol{note}")

    def inspect_henry(self) -> None:
        """Hand out the Henry coefficients that could be had."""
        nodes = self._last_of("henry")
        results = {name: node.outputs.results for name, node in nodes.items() if node.is_finished_ok}
        known = {name: node for name, node in results.items() if node["henry"] is not None}
        failures = {name: reason(node) for name, node in nodes.items() if name not in results}
        failures |= {name: "too few insertions for a value" for name in results if name not in known}
        words = [f"{name} {why}" for name, why in failures.items()]
        if words:
            self.report(f"Henry coefficient: {'; '.join(words)}")
        if known:
            words += self._hand_out_henry(known)
        self.ctx.henry_failure = "; ".join(words)

    def _hand_out_henry(self, known: Mapping[str, orm.Dict]) -> list[str]:
        """Put the coefficients together; return a word on each that is not converged."""
        gases = henry_gases(self.inputs.gas.get_dict(), self.ctx.parameters)
        settings = {
            "temperature": self.ctx.section["temperature"],
            "relative_error_target": self.ctx.parameters["henry_coefficient"]["relative_error_target"],
            "gases": {name: gases[name]["name"] for name in known},
        }
        henry = assemble_henry(orm.Dict(settings), **known)
        self.out("henry_coefficient", henry)
        words = []
        for name, row in henry["gases"].items():
            text = f"{row['value_mol_per_kg_Pa']:.3g} ± {row['error_mol_per_kg_Pa']:.1g} mol/(kg Pa)"
            self.report(f"Henry coefficient of {name} {text}")
            words += [] if row["converged"] else [f"{name} {text} is not converged"]
        return words

    def _last_of(self, prefix: str) -> dict[str, orm.ProcessNode]:
        """Return the last jobs of the runs whose names begin so."""
        runs = self.ctx.averages.items()
        return {
            name: cast(orm.ProcessNode, orm.load_node(run["last"])) for name, run in runs if name.startswith(prefix)
        }

    def inspect_points(self) -> ExitCode | None:
        """Assemble the isotherm; say which points are missing or above the wanted error."""
        last = {
            name: remains_of(run["last"], name).outputs
            for name, run in self.ctx.runs.items()
            if run["last"] is not None
        }
        if not last:
            reasons = (f"{self._pressure(name):g} Pa: {run['reason']}" for name, run in self.ctx.runs.items())
            return self._exit("ERROR_NO_POINT", message="; ".join(reasons))
        points = [{**point, "runs": self._runs_of(key)} for key, point in self.ctx.points.items()]
        settings = orm.Dict({"gas": self.inputs.gas["name"], "section": self.ctx.section, "points": points})
        results = {key: cast(orm.Dict, outputs["results"]) for key, outputs in last.items()}
        isotherm = assemble_isotherm(self.inputs.structure, settings, **results)
        self.out("isotherm", isotherm)
        self.out("timeseries", {key: outputs["timeseries"] for key, outputs in last.items()})
        if self.ctx.heat_failure:
            return self._exit("ERROR_HEAT_FAILED", message=self.ctx.heat_failure)
        verdict = judge_points(isotherm.get_dict(), self.ctx.section["max_hole_fraction"])
        if verdict is not None:
            return self._exit(verdict[0], **verdict[1])
        if not self.ctx.heat_converged:
            return self._exit("WARNING_HEAT_NOT_CONVERGED")
        return self._exit("WARNING_HENRY", message=self.ctx.henry_failure) if self.ctx.henry_failure else None

    def _runs_of(self, point: str) -> list[dict[str, Any]]:
        """Say of the runs of a point what the isotherm is to tell of them."""
        told = ("chunks", "reason")
        runs = self.ctx.runs.items()
        return [{"key": name, **{item: run[item] for item in told}} for name, run in runs if run["point"] == point]

    def _pressure(self, name: str) -> float:
        pressure: float = self.ctx.points[self.ctx.runs[name]["point"]]["pressure"]
        return pressure

    def _exit(self, label: str, **values: str) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(**values)


def _checkpoint(run: Mapping[str, Any], name: str) -> orm.SinglefileData | None:
    """Return the state to go on from, None for a run that has none yet."""
    if run["state"] is None:
        return None
    return cast(orm.SinglefileData, remains_of(run["state"], name).outputs["checkpoint"])
