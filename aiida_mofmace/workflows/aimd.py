"""Ab initio dynamics of the framework with and without gas: frames that are labels already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ExitCode, calcfunction, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.cp2k_label import validate_cp2k_code, validate_level
from aiida_mofmace.calculations.cp2k_md import md_parameters
from aiida_mofmace.calculations.validators import first_message
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.loading import place_molecules

from .checks import check_loadings
from .cp2k_md_base import Cp2kMdBaseWorkChain
from .harvest import reason
from .inputs import code_node, gas_node
from .jobs import child_seed, cp2k_options
from .label_frames import labels_of_runs
from .label_quality import check_labels, quality_bounds
from .ports import define_system_ports
from .protocols import filled_builder, resolve
from .window import RollingWindow

__all__ = ["AimdWorkChain", "fill_pores"]

_SETTINGS = ("temperature", "timestep_fs", "steps", "stride", "thermostat_time_fs")


@calcfunction
def fill_pores(
    structure: orm.StructureData, gas: orm.Dict, loading: orm.Int, distance: orm.Float, seed: orm.Int
) -> orm.StructureData:
    """Return the framework with gas molecules put into its pores at random.

    :param loading: number of molecules
    :param distance: shortest distance in Å between a molecule and everything else
    """
    generator = np.random.default_rng(seed.value)
    molecule = Gas.from_dict(gas.get_dict())
    atoms = place_molecules(structure.get_ase(), molecule, loading.value, distance.value, generator)
    atoms.set_tags(None)
    return orm.StructureData(ase=atoms)


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse a level that CP2K does not compute or that cannot do the framework, and loadings that do not fit."""
    if not {"structure", "gas", "level", "parameters", "seed"} <= set(inputs):
        return None
    level = LevelOfTheory.from_dict(inputs["level"].get_dict())
    if level.program != "cp2k":
        return f"ab initio dynamics is run by CP2K, which does not compute {level.name}; set aimd.loadings to []"
    parameters, structure = inputs["parameters"].get_dict(), inputs["structure"]
    if not parameters["aimd"]["loadings"]:
        return "aimd.loadings is empty; give at least one loading"
    distance = parameters["md"]["insertion_minimum_distance"]
    loadings = parameters["aimd"]["loadings"]
    fitting = check_loadings(structure, inputs["gas"], loadings, distance, inputs["seed"].value)
    return first_message([level.refusal(structure), fitting])


class AimdWorkChain(RollingWindow):
    """Run ab initio dynamics at every loading and make labels of some of its frames.

    A run that fails is reported and left out.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        define_system_ports(spec, "aimd, md, labels and resources")
        spec.input("cp2k_code", valid_type=orm.AbstractCode, validator=validate_cp2k_code, help="CP2K.")
        spec.input("level", valid_type=orm.Dict, validator=validate_level, help="Level of theory of all labels.")
        spec.inputs.validator = validate_inputs
        spec.outline(cls.setup, while_(cls.should_run_md)(cls.run_md), cls.inspect_md)
        spec.output_namespace(
            "trajectories",
            dynamic=True,
            valid_type=FramesData,
            help="All frames by run with energies in eV; aimd_4 has 4 molecules per cell.",
        )
        spec.output_namespace("structures", dynamic=True, valid_type=orm.StructureData, help="Frames that are labels.")
        spec.output_namespace("labels", dynamic=True, valid_type=DftLabelData, help="Their labels.")
        spec.output("selection", valid_type=orm.Dict, help="Group, loading and framework_atoms of each label.")
        spec.output("flagged", valid_type=orm.Dict, help="Labels outside of the bounds, as of LabelWorkChain.")
        spec.exit_code(301, "ERROR_NO_FRAMES", message="No run gave frames that are labels: {message}")

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        structure: orm.StructureData,
        gas: str | orm.Dict = "CO2",
        *,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol, whose ``aimd.loadings`` is empty if not overridden.

        :param codes: code or label of one by key; "cp2k" is needed
        :param structure: framework without gas
        :param gas: name of a known gas, or the description of one
        :param seed: from which velocities and places of the molecules are made
        :raises ValueError: if an input is refused; the message says what to do
        """
        parameters = resolve(protocol, overrides)
        inputs = {
            "cp2k_code": code_node(codes, "cp2k"),
            "structure": structure,
            "gas": gas_node(gas),
            "level": orm.Dict(LevelOfTheory.from_protocol(parameters).to_dict()),
            "seed": orm.Int(seed),
            "parameters": orm.Dict(parameters),
            "metadata": {"label": f"Ab initio MD of {structure.get_formula()}"},
        }
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Name the runs, one for each loading."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        self.ctx.loadings = {f"aimd_{loading}": loading for loading in self.ctx.parameters["aimd"]["loadings"]}
        self.open_window(self.ctx.loadings, self.ctx.parameters["resources"]["max_concurrent"])

    def should_run_md(self) -> bool:
        """Whether a run is still to be done."""
        return self.window_is_open()

    def run_md(self) -> dict[str, Any]:
        """Do as many runs at a time as the resources allow."""
        return self.advance_window(self.submit_md)

    def submit_md(self, key: str) -> orm.ProcessNode:
        """Submit the run of one loading, from molecules at random places."""
        section, md, loading = self.ctx.parameters["aimd"], self.ctx.parameters["md"], self.ctx.loadings[key]
        structure, seed = self.inputs.structure, child_seed(self.inputs.seed, key)
        if loading:
            distance = orm.Float(md["insertion_minimum_distance"])
            structure = fill_pores(structure, self.inputs.gas, orm.Int(loading), distance, seed)
        level = LevelOfTheory.from_dict(self.inputs.level.get_dict())
        settings = {name: section.get(name, md.get(name)) for name in _SETTINGS}
        parameters = md_parameters(level, structure, settings, seed.value)
        gas, temperature = self.inputs.gas["name"], section["temperature"]
        run = {
            "code": self.inputs.cp2k_code,
            "structure": structure,
            "level": self.inputs.level,
            "parameters": orm.Dict(parameters),
            "framework_atoms": orm.Int(len(self.inputs.structure.sites)),
            "loading": orm.Int(loading),
            "group": orm.Str(f"aimd_{temperature:g}K_{loading}{gas}"),
            "metadata": {"options": cp2k_options(self.ctx.parameters)},
        }
        label = f"Ab initio MD at {temperature:g} K, {loading} {gas}"
        inputs = {
            "md": run,
            "max_iterations": orm.Int(1 + section["max_restarts"]),
            "metadata": {"call_link_label": key, "label": label},
        }
        return self.submit(Cp2kMdBaseWorkChain, inputs)

    def inspect_md(self) -> ExitCode | None:
        """Hand out trajectories and labels; what a run that failed has sampled is as good as any."""
        nodes = self.window_results()
        failed = {key: reason(node) for key, node in nodes.items() if not node.is_finished_ok}
        for key, message in failed.items():
            self.report(f"{key} {message}")
        sampled = {key: node.outputs for key, node in nodes.items() if "trajectory" in node.outputs}
        trajectories = {key: outputs.trajectory for key, outputs in sampled.items()}
        if trajectories:
            self.out("trajectories", trajectories)
            section = self.ctx.parameters["aimd"]
            forces = {key: outputs.forces for key, outputs in sampled.items()}
            equilibration, count = orm.Int(section["equilibration_steps"]), orm.Int(section["labels"])
            made = labels_of_runs(self.inputs.level, equilibration, count, trajectories=trajectories, forces=forces)
        if not trajectories or "labels" not in made:
            code: ExitCode = self.exit_codes.ERROR_NO_FRAMES
            return code.format(message="; ".join(failed.values()) or "all are shorter than equilibration_steps")
        self.out_many(made)
        bounds = orm.Dict(quality_bounds(self.ctx.parameters["labels"]))
        self.out("flagged", check_labels(bounds, labels=made["labels"]))
        self.report(f"{len(made['labels'])} labels from {len(sampled)} of {len(nodes)} runs")
        return None
