"""Ports that several work chains share, with their validators."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.base import validate_worker_code
from aiida_mofmace.calculations.cp2k_label import validate_cp2k_code, validate_level
from aiida_mofmace.data.model import MaceModelData

from .inputs import validate_gas, validate_mixture, validate_structure
from .parameter_checks import validate_parameters

__all__ = [
    "define_code",
    "define_label_ports",
    "define_lammps_code",
    "define_lammps_ports",
    "define_monte_carlo_ports",
    "define_replay_ports",
    "define_system_ports",
    "given",
]


def define_code(spec: WorkChainSpec, name: str = "code") -> None:
    """Declare the code that runs the worker."""
    spec.input(
        name,
        valid_type=orm.AbstractCode,
        validator=validate_worker_code,
        help="Python interpreter with the packages of the extra `worker`.",
    )


def define_system_ports(spec: WorkChainSpec, sections: str, mixtures: bool = False) -> None:
    """Declare framework, gas, seed and parameters.

    :param sections: names of the sections of the parameters that the work chain reads
    :param mixtures: whether the gas may be a mixture
    """
    spec.input(
        "structure",
        valid_type=orm.StructureData,
        validator=validate_structure,
        help="Framework without gas, periodic in x, y and z; positions and cell in Å.",
    )
    spec.input(
        "gas",
        valid_type=orm.Dict,
        validator=validate_mixture if mixtures else validate_gas,
        help="Gas molecule: name, symbols, positions in Å, linear, critical constants in K and Pa, acentric factor"
        + ("; or name and components of a mixture, each with its mole_fraction." if mixtures else "."),
    )
    spec.input("seed", valid_type=orm.Int, help="Seed from which those of all jobs are made.")
    spec.input(
        "parameters",
        valid_type=orm.Dict,
        validator=validate_parameters,
        help=f"Parameters of a protocol, of which the sections {sections} are read; units as in the protocol files.",
    )


def define_label_ports(spec: WorkChainSpec, required: bool = True) -> None:
    """Declare level of theory and CP2K.

    :param required: whether the level must be given
    """
    spec.input(
        "level",
        valid_type=orm.Dict,
        required=required,
        validator=validate_level,
        help="Level of theory of all labels, as given by LevelOfTheory.load(name).to_dict().",
    )
    spec.input(
        "cp2k_code",
        valid_type=orm.AbstractCode,
        validator=validate_cp2k_code,
        required=False,
        help="CP2K; needed unless the level of theory is one of tblite.",
    )


def define_monte_carlo_ports(spec: WorkChainSpec) -> None:
    """Declare what grand-canonical Monte Carlo with UFF needs, which is left out where both are missing."""
    spec.input("raspa_code", valid_type=orm.AbstractCode, required=False, help="RASPA2, its command `simulate`.")
    spec.input(
        "charges",
        valid_type=orm.List,
        required=False,
        help="Charge of each atom of the framework in e, in its order.",
    )


def define_lammps_code(spec: WorkChainSpec) -> None:
    """Declare a LAMMPS of one's own, which is left out where the worker runs LAMMPS or none is wanted."""
    spec.input(
        "lammps_code",
        valid_type=orm.AbstractCode,
        required=False,
        help="LAMMPS set up for the plugin `lammps.raw`, for the engine lammps: mofmace-lmp, or for MD one with MACE.",
    )


def define_lammps_ports(spec: WorkChainSpec) -> None:
    """Declare a LAMMPS of one's own and its model."""
    define_lammps_code(spec)
    spec.input(
        "lammps_model",
        valid_type=orm.SinglefileData,
        required=False,
        help="The model as this LAMMPS reads it, converted for its pair_style; mofmace-lmp needs none.",
    )


def define_replay_ports(spec: WorkChainSpec) -> None:
    """Declare the foundation model and its replay data."""
    spec.input("foundation", valid_type=MaceModelData, help="Model to start from.")
    spec.input(
        "replay_train",
        valid_type=orm.SinglefileData,
        required=False,
        help="Structures of the foundation model's training set (extended XYZ); needed for multihead replay.",
    )
    spec.input(
        "replay_valid",
        valid_type=orm.SinglefileData,
        required=False,
        help="Structures like `replay_train` (extended XYZ) for validation.",
    )


def given(inputs: Any, *names: str) -> dict[str, Any]:
    """Return those of the inputs that are there, by their names."""
    return {name: inputs[name] for name in names if name in inputs}
