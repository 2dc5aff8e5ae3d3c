"""Structural units of a framework: molecular dynamics, empty and loaded, and how its hydroxyl groups turn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.validators import first_message
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.protocols import load_sites
from aiida_mofmace.worker.kernels.sites import SiteDefinition
from aiida_mofmace.worker.kernels.structural_units import hydroxyls_of_cells

from .checks import check_loadings, check_model
from .harvest import runs_with_frames
from .inputs import code_node, foundation_model, gas_node
from .jobs import md_inputs, md_key
from .mace_md_base import MaceMdBaseWorkChain
from .ports import define_code, define_system_ports
from .protocols import filled_builder, resolve
from .structural_functions import find_structural_units, tabulate_units, validate_sites
from .window import RollingWindow
from .worker_base import layer_inputs

__all__ = ["StructuralUnitsWorkChain"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse a framework without the sites, unknown elements, and loadings that do not fit into the pores."""
    if not {"structure", "gas", "model", "sites", "parameters", "seed"} <= set(inputs):
        return None
    structure, gas, parameters = inputs["structure"], inputs["gas"], inputs["parameters"].get_dict()
    loadings, distance = parameters["structural_units"]["loadings"], parameters["md"]["insertion_minimum_distance"]
    return first_message(
        [
            _check_framework(structure, inputs["sites"]),
            check_model(inputs["model"], structure, gas),
            check_loadings(structure, gas, loadings, distance, inputs["seed"].value),
        ]
    )


def _check_framework(structure: orm.StructureData, sites: orm.Dict) -> str | None:
    atoms = structure.get_ase()
    try:
        definition = SiteDefinition.from_dict(sites.get_dict())
        hydroxyls_of_cells(definition, atoms.numbers, atoms.positions, atoms.cell.array)
    except (ValueError, TypeError) as error:
        return f"structure and sites do not belong together: {error}"
    return None


class StructuralUnitsWorkChain(RollingWindow):
    """Fractions of the structural units and of the orientations of the hydroxyl groups, with errors.

    One MD run at each temperature and loading. A fraction whose unit came or went too rarely for an error is marked.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        define_code(spec)
        define_system_ports(spec, "structural_units, md, evaluation and resources")
        spec.input("model", valid_type=MaceModelData, help="Model that gives energies and forces.")
        spec.input(
            "sites",
            valid_type=orm.Dict,
            validator=validate_sites,
            help="Hydroxyl sites and structural units of the framework, as given by load_sites(name).",
        )
        spec.inputs.validator = validate_inputs
        spec.output("table", valid_type=orm.Dict, help="A row for each run: fractions with standard errors.")
        for name, valid_type, what in (
            ("fractions", orm.Dict, "Fractions with standard errors, sequences and flips"),
            ("series", orm.ArrayData, "Fractions against step, and the distribution of alpha,"),
        ):
            spec.output_namespace(name, dynamic=True, valid_type=valid_type, help=f"{what} by name of the run.")
        spec.outline(cls.setup, while_(cls.should_run_md)(cls.run_md), cls.inspect_md)
        spec.exit_code(301, "ERROR_NO_RUN", message="No MD run gave frames: {names}.")
        spec.exit_code(
            701,
            "WARNING_NOT_CONVERGED",
            message="The hydroxyl groups turned too rarely in {names}; raise structural_units.steps.",
        )
        spec.exit_code(702, "WARNING_RUNS_MISSING", message="Some MD runs gave no frames: {names}.")

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
        """Return a builder with the parameters of a protocol; arguments as in :class:`SamplingWorkChain`.

        :param sites: definition by name of the framework, as a YAML file, or as a node
        """
        parameters = resolve(protocol, overrides)
        inputs = {
            "code": code_node(codes, "worker"),
            "structure": structure,
            "sites": sites if isinstance(sites, orm.Dict) else orm.Dict(load_sites(sites)),
            "gas": gas_node(gas),
            "model": foundation_model(model, parameters),
            "seed": orm.Int(seed),
            "parameters": orm.Dict(parameters),
            "metadata": {"label": f"Structural units of {structure.get_formula()}"},
        }
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Name the runs: every temperature with every loading."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        section = self.ctx.parameters["structural_units"]
        self.ctx.runs = {
            md_key(temperature, loading): {"temperature": temperature, "loading": loading}
            for temperature in section["temperatures"]
            for loading in section["loadings"]
        }
        self.open_window(list(self.ctx.runs), self.ctx.parameters["resources"]["max_concurrent"])

    def should_run_md(self) -> bool:
        """Whether a run is still to be done."""
        return self.window_is_open()

    def run_md(self) -> dict[str, Any]:
        """Do as many runs at a time as the resources allow."""
        return self.advance_window(self.submit_md)

    def submit_md(self, key: str) -> orm.ProcessNode:
        """Submit one run."""
        parameters = self.ctx.parameters
        section = parameters["structural_units"]
        md = md_inputs(key, self.inputs, parameters, run=section, model=self.inputs.model, **self.ctx.runs[key])
        return self.submit(MaceMdBaseWorkChain, layer_inputs(md, "md", section["max_restarts"]))

    def inspect_md(self) -> ExitCode | None:
        """Classify the frames of every run; say which are missing and which are too short."""
        nodes = self.window_results()
        sampled = runs_with_frames(self, nodes)
        missing = ", ".join(sorted(set(nodes) - set(sampled)))
        if not sampled:
            return self._exit("ERROR_NO_RUN", missing)
        fractions: dict[str, Any] = {}
        for key, node in sampled.items():
            found: Any = find_structural_units(node.outputs.trajectory, self.inputs.sites)
            fractions[key] = found["fractions"]
            self.out(f"fractions.{key}", found["fractions"])
            self.out(f"series.{key}", found["series"])
            means = {name: value["mean"] for name, value in found["fractions"]["units"].items()}
            self.report(f"{key}: " + ", ".join(f"{name} {mean:.2f}" for name, mean in means.items()))
        self.out("table", tabulate_units(orm.Dict(self.ctx.runs), **fractions))
        if missing:
            return self._exit("WARNING_RUNS_MISSING", missing)
        short = [key for key, node in fractions.items() if _is_short(node.get_dict())]
        return self._exit("WARNING_NOT_CONVERGED", ", ".join(short)) if short else None

    def _exit(self, label: str, names: str) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(names=names)


def _is_short(fractions: dict[str, Any]) -> bool:
    """Whether a unit that was met has no error bar to rely on; one that never came leaves no doubt in the others."""
    return any(unit["too_short"] for unit in fractions["units"].values() if unit["mean"] > 0.0)
