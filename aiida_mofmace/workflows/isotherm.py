"""The isotherm: hybrid MD-GCMC at every pressure, and the heat of adsorption from MD averages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from aiida import orm
from aiida.engine import ExitCode, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.mace_md import MaceMdCalculation
from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation
from aiida_mofmace.calculations.md_gcmc_batch import MdGcmcBatchCalculation
from aiida_mofmace.calculations.validators import first_message
from aiida_mofmace.data.model import MaceModelData

from .adsorption import assemble_heat, assemble_isotherm, framework_mass, is_converged
from .checks import check_loadings, check_model, check_pressures
from .gcmc_runs import batch_inputs, remains_of, was_stopped
from .harvest import reason
from .inputs import code_node, foundation_model, gas_node
from .jobs import gas_phase_inputs, gcmc_inputs, md_inputs
from .ports import define_code, define_system_ports
from .protocols import filled_builder, resolve
from .window import RollingWindow

__all__ = ["MDGCMCIsothermWorkChain"]

_HEAT = ("heat_loaded", "heat_framework", "heat_gas")


def validate_pressures(pressures: orm.List | None, _: Any) -> str | None:
    """Refuse pressures that are not positive or not there."""
    return None if pressures is None else check_pressures(pressures.get_list())


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse elements that the model does not know and loadings that do not fit into the pores."""
    if not {"structure", "gas", "model", "parameters", "seed"} <= set(inputs):
        return None
    structure, gas = inputs["structure"], inputs["gas"]
    parameters = inputs["parameters"].get_dict()
    loadings = [parameters["heat_of_adsorption"]["n_molecules"], parameters["isotherm"]["initial_loading"]]
    distance = max(parameters["md"]["insertion_minimum_distance"], parameters["gcmc"]["minimum_distance"])
    return first_message(
        [
            check_model(inputs["model"], structure, gas),
            check_loadings(structure, gas, loadings, distance, inputs["seed"].value),
        ]
    )


class MDGCMCIsothermWorkChain(RollingWindow):
    """Loading of the framework with a gas or a mixture at every pressure with an error bar, and the heat of adsorption.

    Each pressure is run in chunks, each from the checkpoint of the one before, until the error of the mean loading is
    small enough or the limit of steps is met. The pressures run side by side, in jobs of their own or all in one.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        define_code(spec)
        define_system_ports(spec, "isotherm, heat_of_adsorption, md, gcmc, evaluation and resources", mixtures=True)
        spec.input("model", valid_type=MaceModelData, help="Model that gives energies and forces.")
        spec.input(
            "pressures",
            valid_type=orm.List,
            required=False,
            validator=validate_pressures,
            help="Pressures in Pa; those of the parameters if not given.",
        )
        spec.inputs.validator = validate_inputs
        spec.output("isotherm", valid_type=orm.Dict, help="Points with standard errors, also in mol/kg.")
        spec.output_namespace(
            "timeseries",
            dynamic=True,
            valid_type=orm.ArrayData,
            help="Loading (molecules per cell) and energy (eV) against step of each point: pressure_00 and so on.",
        )
        spec.output("heat_of_adsorption", valid_type=orm.Dict, required=False, help="Equation 2 of the paper, kJ/mol.")
        spec.outline(cls.setup, while_(cls.should_run_chunks)(cls.run_chunks), cls.inspect_heat, cls.inspect_points)
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

        :param gas: one gas, or the mole fractions of a mixture by the names of its components
        """
        parameters = resolve(protocol, overrides)
        inputs = {
            "code": code_node(codes, "worker"),
            "structure": structure,
            "gas": gas_node(gas),
            "model": foundation_model(model, parameters),
            "seed": orm.Int(seed),
            "parameters": orm.Dict(parameters),
            "metadata": {"label": f"Isotherm of {structure.get_formula()}"},
        }
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Name the points; the three runs for the heat of adsorption go behind them."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        self.ctx.section = self.ctx.parameters["isotherm"]
        pressures = self.inputs.pressures if "pressures" in self.inputs else self.ctx.section["pressures"]
        self.ctx.mass = framework_mass(self.inputs.structure)
        self.ctx.points = {
            f"pressure_{index:02d}": {"pressure": float(pressure), "chunks": 0, "steps": 0, "last": None, "reason": ""}
            for index, pressure in enumerate(pressures)
        }
        # The heat by equation 2 is that of one kind of molecule; a mixture has its isosteric heats.
        runs = () if "components" in self.inputs.gas.get_dict() else _HEAT
        self.ctx.heat = {name: {"parts": 0, "last": None} for name in runs}
        self.ctx.due = list(self.ctx.points)  # of the points that share a job, those that go on
        points = ["batch_00"] if self.ctx.section["batch"] else [f"{point}_chunk_00" for point in self.ctx.points]
        keys = [*points, *runs]
        self.open_window(keys, self.ctx.parameters["resources"]["max_concurrent"])

    def should_run_chunks(self) -> bool:
        """Whether a point or a run for the heat of adsorption is still to be done."""
        return self.window_is_open()

    def run_chunks(self) -> dict[str, Any]:
        """Do as many runs at a time as the resources allow."""
        return self.advance_window(self.submit_run, self.on_run_finished)

    def submit_run(self, key: str) -> orm.ProcessNode:
        """Submit a chunk of a point, or of all that go on, or a run for the heat of adsorption."""
        if key.startswith("heat"):
            return self._submit_heat(key)
        if not key.startswith("batch"):
            return self.submit(MdGcmcCalculation, self._chunk_inputs(key.partition("_chunk_")[0]))
        chunks = {name: self._chunk_inputs(name) for name in self.ctx.due}
        label = f"MD-GCMC of {self.inputs.gas['name']} at {len(chunks)} pressures"
        return self.submit(MdGcmcBatchCalculation, batch_inputs(key, label, chunks))

    def _chunk_inputs(self, name: str) -> dict[str, Any]:
        """Return the inputs of the next chunk of a point, the same whether it shares a job or not.

        A chunk goes on to a number of steps counted from the very first; one that was stopped is asked for again.
        """
        point, chunk = self.ctx.points[name], self.ctx.section["chunk_steps"]
        inputs = gcmc_inputs(
            f"{name}_chunk_{point['chunks']:02d}",
            self.inputs,
            self.ctx.parameters,
            run=self.ctx.section,
            model=self.inputs.model,
            pressure=point["pressure"],
            steps=min(self.ctx.section["max_steps"], (point["steps"] // chunk + 1) * chunk),
            checkpoint=_checkpoint(point, name),
        )
        point["fugacity"] = inputs["parameters"]["fugacity"]
        return inputs

    def _submit_heat(self, key: str) -> orm.ProcessNode:
        section, parameters, model = self.ctx.parameters["heat_of_adsorption"], self.ctx.parameters, self.inputs.model
        name = key.partition("_part_")[0]
        if name == "heat_gas":
            inputs = gas_phase_inputs(key, self.inputs, parameters, section, model)
        else:
            loading = section["n_molecules"] if name == "heat_loaded" else 0
            run = {"run": section, "model": model, "temperature": section["temperature"], "loading": loading}
            inputs = md_inputs(key, self.inputs, parameters, **run)
        checkpoint = _checkpoint(self.ctx.heat[name], name)
        return self.submit(MaceMdCalculation, inputs | ({} if checkpoint is None else {"checkpoint": checkpoint}))

    def on_run_finished(self, key: str, node: orm.ProcessNode) -> None:
        """Take in a chunk of a point, or of several, or a run for the heat of adsorption."""
        if key.startswith("heat"):
            self._on_heat_finished(key.partition("_part_")[0], node)
        elif key.startswith("batch"):
            self.ctx.due = [name for name in self.ctx.due if self._goes_on(name, node)]
            if self.ctx.due:
                self.enqueue(f"batch_{int(key.rpartition('_')[2]) + 1:02d}")
        else:
            name = key.partition("_chunk_")[0]
            if self._goes_on(name, node):
                self.enqueue(f"{name}_chunk_{self.ctx.points[name]['chunks']:02d}")

    def _on_heat_finished(self, name: str, node: orm.ProcessNode) -> None:
        """Go on with a run that was stopped before its end."""
        run = self.ctx.heat[name]
        run["last"] = node.pk
        if was_stopped(node) and "checkpoint" in node.outputs:
            run["parts"] += 1
            self.enqueue(f"{name}_part_{run['parts']:02d}")

    def _goes_on(self, name: str, node: orm.ProcessNode) -> bool:
        """Take in a chunk of a point; whether it goes on: it is not converged, not at its limit and not broken."""
        point = self.ctx.points[name]
        outputs, results, stopped, failure = remains_of(node, name)
        if failure:
            point["reason"] = failure
            self.report(f"{name}, {point['pressure']:g} Pa: {failure}")
            return False
        has_advanced = results["steps_done"] > point["steps"]
        point |= {"last": node.pk, "steps": results["steps_done"], "chunks": point["chunks"] + 1}
        error = results.get("loading_error")
        bar = "" if error is None else f" ± {error:.2f}"
        self.report(
            f"{name}, {point['pressure']:g} Pa: {results['mean_loading']:.2f}{bar} molecules per cell "
            f"after {point['steps']} steps"
        )
        if results.get("explosion") or "checkpoint" not in outputs or not has_advanced:
            point["reason"] = (results.get("explosion") or {}).get("message", "the run could not go on")
            return False
        converged = is_converged(results, self.ctx.mass, self.ctx.section)
        return point["steps"] < self.ctx.section["max_steps"] and (stopped or not converged)

    def inspect_heat(self) -> None:
        """Compute the heat of adsorption if its three runs came to their ends."""
        nodes = {name: cast(orm.ProcessNode, orm.load_node(run["last"])) for name, run in self.ctx.heat.items()}
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

    def inspect_points(self) -> ExitCode | None:
        """Assemble the isotherm; say which points are missing or above the wanted error."""
        points = [{"key": key, **point} for key, point in self.ctx.points.items()]
        last = {
            key: remains_of(point["last"], key).outputs
            for key, point in self.ctx.points.items()
            if point["last"] is not None
        }
        failures = "; ".join(f"{p['pressure']:g} Pa: {p['reason']}" for p in points if p["key"] not in last)
        if not last:
            return self._exit("ERROR_NO_POINT", message=failures)
        settings = orm.Dict({"gas": self.inputs.gas["name"], "section": self.ctx.section, "points": points})
        results = {key: cast(orm.Dict, outputs["results"]) for key, outputs in last.items()}
        isotherm = assemble_isotherm(self.inputs.structure, settings, **results)
        self.out("isotherm", isotherm)
        self.out("timeseries", {key: outputs["timeseries"] for key, outputs in last.items()})
        if self.ctx.heat_failure:
            return self._exit("ERROR_HEAT_FAILED", message=self.ctx.heat_failure)
        if failures:
            return self._exit("WARNING_POINTS_MISSING", message=failures)
        loose = [f"{point['pressure_Pa']:g}" for point in isotherm["points"] if not point["converged"]]
        if loose:
            return self._exit("WARNING_NOT_CONVERGED", pressures=", ".join(loose))
        return None if self.ctx.heat_converged else self._exit("WARNING_HEAT_NOT_CONVERGED")

    def _exit(self, label: str, **values: str) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(**values)


def _checkpoint(run: Mapping[str, Any], name: str) -> orm.SinglefileData | None:
    """Return the state to go on from, None for a run that has not begun."""
    if run["last"] is None:
        return None
    return cast(orm.SinglefileData, remains_of(run["last"], name).outputs["checkpoint"])
