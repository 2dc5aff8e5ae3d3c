"""Energies of isolated atoms at the level of the labels, for the atomic energies of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ExitCode, calcfunction, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from ase import Atoms

from aiida_mofmace.calculations.cp2k_label import validate_cp2k_code, validate_level
from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.protocols import load_free_atoms

from .cp2k_label_base import Cp2kLabelBaseWorkChain
from .harvest import reason
from .inputs import code_node
from .jobs import cp2k_options
from .protocols import filled_builder, resolve
from .scheduler_options import validate_options
from .window import RollingWindow

__all__ = ["IsolatedAtomsWorkChain", "isolated_atom", "isolated_atoms_inputs", "with_atomic_energies"]


@calcfunction
def isolated_atom(element: orm.Str, box: orm.Float) -> orm.StructureData:
    """Return one atom in the middle of a periodic cube.

    :param element: chemical symbol
    :param box: edge in Å
    """
    return orm.StructureData(ase=Atoms(element.value, [[0.5 * box.value] * 3], cell=np.eye(3) * box.value, pbc=True))


@calcfunction
def gather_energies(**labels: DftLabelData) -> orm.Dict:
    """Return the energies of labels of single atoms in eV, by chemical symbol."""
    return orm.Dict({label.symbols[0]: label.energy for label in labels.values()})


@calcfunction
def with_atomic_energies(parameters: orm.Dict, energies: orm.Dict) -> orm.Dict:
    """Return the parameters of a protocol with these atomic energies (eV, by chemical symbol) for fine-tuning."""
    content = parameters.get_dict()
    return orm.Dict({**content, "fine_tune": {**content["fine_tune"], "e0s": energies.get_dict()}})


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse elements without a known spin and levels that CP2K does not compute."""
    if not {"elements", "level"} <= set(inputs):
        return None
    unknown = sorted(set(inputs["elements"].get_list()) - set(load_free_atoms()))
    if unknown:
        return f"the multiplicity of a free atom of {', '.join(unknown)} is not in protocols/references/free_atoms.yaml"
    if inputs["level"]["program"] != "cp2k":
        return f"isolated atoms are labelled with CP2K; at {inputs['level']['name']} set fine_tune.e0s to estimated"
    return None


class IsolatedAtomsWorkChain(RollingWindow):
    """Label one isolated atom of each element, in its ground state, with the settings of a level of theory.

    The spin makes a level of its own of each of these labels, so they cannot get into a dataset by mistake; functional,
    basis set and cut-off are those of the level. With AiiDA's caching each atom is computed once.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.input("cp2k_code", valid_type=orm.AbstractCode, validator=validate_cp2k_code, help="CP2K.")
        spec.input("level", valid_type=orm.Dict, validator=validate_level, help="Level of theory of the labels.")
        spec.input("elements", valid_type=orm.List, help="Chemical symbols.")
        spec.input("box", valid_type=orm.Float, help="Edge of the periodic cube around each atom in Å.")
        spec.input("max_concurrent", valid_type=orm.Int, help="The most atoms at work at once.")
        spec.input(
            "options",
            valid_type=orm.Dict,
            required=False,
            validator=validate_options,
            help="Options of each job for the scheduler.",
        )
        spec.inputs.validator = validate_inputs
        spec.outline(cls.setup, while_(cls.should_run_atoms)(cls.run_atoms), cls.inspect_atoms)
        spec.output("energies", valid_type=orm.Dict, help="Energies of the isolated atoms in eV, by chemical symbol.")
        spec.exit_code(301, "ERROR_ATOM_FAILED", message="No energy of the isolated atoms {names}: {message}")

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        elements: list[str],
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol.

        :param codes: code, or label of one, by key; "cp2k" is needed
        :param elements: chemical symbols
        """
        parameters = resolve(protocol, overrides)
        inputs = isolated_atoms_inputs(orm.Dict(LevelOfTheory.from_protocol(parameters).to_dict()), parameters)
        inputs |= {"cp2k_code": code_node(codes, "cp2k"), "elements": orm.List(sorted(elements))}
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Name the atoms."""
        elements = sorted(set(self.inputs.elements.get_list()))
        self.open_window([f"atom_{element}" for element in elements], self.inputs.max_concurrent.value)

    def should_run_atoms(self) -> bool:
        """Whether an atom is still to be labelled."""
        return self.window_is_open()

    def run_atoms(self) -> dict[str, Any]:
        """Label as many atoms at a time as allowed."""
        return self.advance_window(self.submit_atom)

    def submit_atom(self, key: str) -> orm.ProcessNode:
        """Submit the label of one atom in its ground state."""
        element = key.rpartition("_")[2]
        level = LevelOfTheory.from_dict(self.inputs.level.get_dict())
        spin = load_free_atoms()[element]
        options = {"options": self.inputs.options} if "options" in self.inputs else {}
        return self.submit(
            Cp2kLabelBaseWorkChain,
            code=self.inputs.cp2k_code,
            structure=isolated_atom(orm.Str(element), self.inputs.box),
            level=orm.Dict(level.with_charge(0, spin).to_dict()),
            metadata={"call_link_label": key, "label": f"{level.name} of an isolated {element}"},
            **options,
        )

    def inspect_atoms(self) -> ExitCode | None:
        """Hand out the energies; every atom is needed."""
        nodes = self.window_results()
        failed = {key: node for key, node in nodes.items() if not node.is_finished_ok}
        if failed:
            code: ExitCode = self.exit_codes.ERROR_ATOM_FAILED
            names = ", ".join(key.rpartition("_")[2] for key in failed)
            return code.format(names=names, message=reason(next(iter(failed.values()))))
        energies = gather_energies(**{key: node.outputs.label for key, node in nodes.items()})
        self.out("energies", energies)
        self.report(", ".join(f"{element} {energy:.3f} eV" for element, energy in sorted(energies.get_dict().items())))
        return None


def isolated_atoms_inputs(level: orm.Dict, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return level, box and what the jobs may use, from the parameters of a protocol."""
    return {
        "level": level,
        "box": orm.Float(parameters["fine_tune"]["isolated_atom_box"]),
        "max_concurrent": orm.Int(parameters["resources"]["max_concurrent"]),
        "options": orm.Dict(cp2k_options(parameters)),
    }
