"""Sampling: molecular dynamics at every temperature and loading, and Monte Carlo with a generic force field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.validators import first_message
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import UNTRAINED, MaceModelData

from .aimd import AimdWorkChain
from .aimd import validate_inputs as validate_aimd
from .checks import check_lammps, check_loadings, check_model, check_monte_carlo, check_one_cell, check_repeats
from .functions import make_supercell, rattle, rattle_gas
from .harvest import reason, runs_with_frames
from .inputs import code_node, foundation_model, gas_node, lammps_inputs, monte_carlo_inputs
from .jobs import child_seed, lone_gas_group, md_inputs, md_key
from .lammps_md import LammpsMdWorkChain
from .mace_md_base import MaceMdBaseWorkChain
from .ports import (
    define_code,
    define_label_ports,
    define_lammps_ports,
    define_monte_carlo_ports,
    define_system_ports,
    given,
)
from .protocols import filled_builder, resolve
from .window import RollingWindow
from .worker_base import layer_inputs

__all__ = ["SamplingWorkChain"]

_UFF, _AIMD = "uff_gcmc", "aimd"


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse elements that the model does not know and loadings that do not fit into the pores."""
    if not {"structure", "gas", "model", "parameters", "seed"} <= set(inputs):
        return None
    structure, gas = inputs["structure"], inputs["gas"]
    parameters = inputs["parameters"].get_dict()
    if parameters["aimd"]["loadings"]:
        if not {"cp2k_code", "level"} <= set(inputs):
            return "ab initio MD needs cp2k_code and level; give them, or set aimd.loadings to []"
        message = validate_aimd(inputs, None)
        if message:
            return message
    distance = parameters["md"]["insertion_minimum_distance"]
    return first_message(
        [
            check_monte_carlo(inputs),
            check_lammps(inputs),
            check_model(inputs["model"], structure, gas),
            check_repeats(parameters["sampling"]["supercell"])
            or check_one_cell(inputs)
            or check_loadings(
                structure,
                gas,
                parameters["sampling"]["loadings"],
                distance,
                inputs["seed"].value,
                repeats=parameters["sampling"]["supercell"],
            ),
        ]
    )


class SamplingWorkChain(RollingWindow):
    """Explore the framework, empty and loaded, by MD with the model that there is.

    Where charges of the framework and RASPA are given, snapshots of grand-canonical Monte Carlo with UFF are added, and
    where ``aimd.loadings`` is not empty, ab initio MD whose frames are labels already.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        define_code(spec)
        define_system_ports(spec, "sampling, aimd, md, uff_gcmc, evaluation and resources")
        spec.input("model", valid_type=MaceModelData, help="Model that gives energies and forces.")
        define_monte_carlo_ports(spec)
        define_lammps_ports(spec)
        define_label_ports(spec, required=False)
        spec.inputs.validator = validate_inputs
        spec.output_namespace(
            "trajectories",
            dynamic=True,
            valid_type=FramesData,
            help="Frames after equilibration, by run: md_300k_4 is 300 K with 4 molecules per cell, "
            "uff_pressure_00 the first pressure of Monte Carlo with UFF.",
        )
        spec.expose_outputs(AimdWorkChain, namespace=_AIMD, namespace_options={"required": False})
        spec.output("uff_isotherm", valid_type=orm.Dict, required=False, help="Isotherm of the rigid framework by UFF.")
        spec.outline(cls.setup, while_(cls.should_run_md)(cls.run_md), cls.inspect_md)
        spec.exit_code(
            301,
            "ERROR_TOO_FEW_RUNS",
            message="{count} of {size} MD runs gave frames; is the model stable? See {names}.",
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
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol.

        :param codes: code or label of one by key; "worker" is needed, "raspa" with charges, "cp2k" with
            ``aimd.loadings``, "lammps" for a LAMMPS of your own as engine
        :param structure: framework without gas
        :param gas: name of a known gas, or the description of one
        :param model: node, path or name of a model; None for the protocol's own
        :param charges: of the framework's atoms in e, for Monte Carlo with UFF; None for MD alone
        :param lammps_model: the model as the code "lammps" reads it; None for mofmace-lmp
        :param overrides: changes of the protocol, nested like its file
        :param seed: from which the seeds of all jobs are made
        :raises ValueError: if an input is refused; the message says what to do
        """
        parameters = resolve(protocol, overrides, model)
        inputs = {
            "code": code_node(codes, "worker"),
            **monte_carlo_inputs(codes, charges),
            **lammps_inputs(codes, lammps_model),
            "cp2k_code": code_node(codes, "cp2k"),
            "level": orm.Dict(LevelOfTheory.from_protocol(parameters).to_dict()),
            "structure": structure,
            "gas": gas_node(gas),
            "model": foundation_model(model, parameters),
            "seed": orm.Int(seed),
            "parameters": orm.Dict(parameters),
            "metadata": {"label": f"Sampling of {structure.get_formula()}"},
        }
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Name the runs: every temperature with every loading."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        sampling = self.ctx.parameters["sampling"]
        repeats = orm.List(sampling["supercell"])
        self.ctx.cells = math.prod(repeats)
        self.ctx.structure = self.inputs.structure
        if self.ctx.cells > 1:
            self.ctx.structure = make_supercell(self.inputs.structure, repeats)
        self.ctx.runs = {
            md_key(temperature, loading): {"temperature": temperature, "loading": loading}
            for temperature in sampling["temperatures"]
            for loading in sampling["loadings"]
        }
        if self.inputs.model.kind == UNTRAINED:
            self._rattle()
        monte_carlo = [_UFF] if "charges" in self.inputs else []
        ab_initio = [_AIMD] if self.ctx.parameters[_AIMD]["loadings"] else []
        self.open_window([*ab_initio, *monte_carlo, *self.ctx.runs], self.ctx.parameters["resources"]["max_concurrent"])
        self.report(f"{len(self.ctx.runs)} MD runs of {sampling['steps']} steps")

    def _rattle(self) -> None:
        """Make frames without the model, which is untrained and can move nothing, in place of the MD runs."""
        section, md = self.ctx.parameters["sampling"], self.ctx.parameters["md"]
        gas = self.inputs.gas["name"]
        common = {
            "amplitude": section["rattle_amplitude"],
            "insertion_distance": md["insertion_minimum_distance"],
            "minimum_distance": md["minimum_distance"],
        }
        for loading in section["loadings"]:
            key = f"rattled_{loading}"
            content = common | {"loading": loading * self.ctx.cells, "frames": section["rattled_frames"]}
            content["group"] = f"rattled_{loading}{gas}"
            seed = child_seed(self.inputs.seed, key)
            self.out(f"trajectories.{key}", rattle(self.ctx.structure, self.inputs.gas, seed, orm.Dict(content)))
        # Without the lone molecule no model knows what adsorption is measured against.
        content = common | {"loading": 1, "frames": section["rattled_gas_frames"], "group": lone_gas_group(gas)}
        content["gas_phase_box"] = self.ctx.parameters["heat_of_adsorption"]["gas_phase_box"]
        seed = child_seed(self.inputs.seed, "rattled_gas")
        self.out("trajectories.rattled_gas", rattle_gas(self.inputs.gas, seed, orm.Dict(content)))
        self.ctx.runs = {}
        self.report(f"the model is untrained: {section['rattled_frames']} frames of each loading by rattling, no MD")

    def should_run_md(self) -> bool:
        """Whether a run is still to be done."""
        return self.window_is_open()

    def run_md(self) -> dict[str, Any]:
        """Do as many runs at a time as the resources allow."""
        return self.advance_window(self.submit_md)

    def submit_md(self, key: str) -> orm.ProcessNode:
        """Submit one run."""
        if key == _UFF:
            return self._submit_monte_carlo()
        if key == _AIMD:
            return self._submit_ab_initio()
        parameters = self.ctx.parameters
        run = {"run": parameters["sampling"], "model": self.inputs.model, **self.ctx.runs[key]}
        system = {**self.inputs, "structure": self.ctx.structure}
        md = md_inputs(key, system, parameters, **run, cells=self.ctx.cells)
        inputs = layer_inputs(md, "md", parameters["sampling"]["max_restarts"])
        own = given(self.inputs, "lammps_code", "lammps_model")
        return self.submit(LammpsMdWorkChain, {**inputs, **own}) if own else self.submit(MaceMdBaseWorkChain, inputs)

    def _submit_monte_carlo(self) -> orm.ProcessNode:
        from .uff_isotherm import UffIsothermWorkChain  # needs the extra `uff`, which sampling by MD does not

        inputs = {name: self.inputs[name] for name in ("structure", "gas", "charges", "parameters")}
        inputs |= {"code": self.inputs.raspa_code, "seed": child_seed(self.inputs.seed, _UFF)}
        return self.submit(UffIsothermWorkChain, {**inputs, "metadata": {"call_link_label": _UFF}})

    def _submit_ab_initio(self) -> orm.ProcessNode:
        inputs = given(self.inputs, "cp2k_code", "level", "structure", "gas", "parameters")
        inputs["seed"] = child_seed(self.inputs.seed, _AIMD)
        return self.submit(AimdWorkChain, {**inputs, "metadata": {"call_link_label": _AIMD, "label": "Ab initio MD"}})

    def _inspect_ab_initio(self, node: orm.ProcessNode) -> None:
        if not node.is_finished_ok:
            self.report(f"{_AIMD} {reason(node)}")
        self.out_many(self.exposed_outputs(node, AimdWorkChain, namespace=_AIMD))

    def _inspect_monte_carlo(self, node: orm.ProcessNode) -> None:
        if not node.is_finished_ok:
            self.report(f"{_UFF} {reason(node)}")
        if "isotherm" in node.outputs:
            self.out("uff_isotherm", node.outputs.isotherm)
        if "trajectories" in node.outputs:
            self.out_many({f"trajectories.uff_{key}": found for key, found in node.outputs.trajectories.items()})

    def inspect_md(self) -> ExitCode | None:
        """Hand out the trajectories; say which runs failed, and give up if too few gave frames."""
        nodes = self.window_results()
        if _UFF in nodes:
            self._inspect_monte_carlo(nodes.pop(_UFF))
        if _AIMD in nodes:
            self._inspect_ab_initio(nodes.pop(_AIMD))
        sampled = runs_with_frames(self, nodes)
        failed = [key for key in nodes if key not in sampled]
        self.out_many({f"trajectories.{key}": node.outputs.trajectory for key, node in sampled.items()})
        if nodes and len(sampled) < max(1, self.ctx.parameters["sampling"]["min_success_fraction"] * len(nodes)):
            code: ExitCode = self.exit_codes.ERROR_TOO_FEW_RUNS
            return code.format(count=str(len(sampled)), size=str(len(nodes)), names=", ".join(failed))
        frames = sum(node.outputs.trajectory.n_frames for node in sampled.values())
        self.report(f"{frames} frames from {len(sampled)} of {len(nodes)} runs")
        return None
