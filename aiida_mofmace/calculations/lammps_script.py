"""Input of LAMMPS for dynamics and MD-GCMC with a MACE model: script and structure as text, from the worker's state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from ase.data import atomic_masses, chemical_symbols
from ase.geometry import cellpar_to_cell
from ase.geometry.cell import cell_to_cellpar
from numpy.typing import NDArray

from aiida_mofmace.worker.kernels.dynamics import CHAIN_LENGTH, MdState
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.lammps_engine import VELOCITY
from aiida_mofmace.worker.kernels.lammps_molecule import types_with_gas
from aiida_mofmace.worker.kernels.referee import TOLERANCES as REFEREE_TOLERANCES
from aiida_mofmace.worker.programs.simulation import DISTANCE_CHECK_INTERVAL, Guard

__all__ = [
    "DUMP",
    "LAST",
    "LAUNCHER",
    "MOLECULE",
    "PAIR_STYLES",
    "RESTART",
    "STRUCTURE",
    "TOLERANCES",
    "exchange_phase",
    "first_script",
    "model_name",
    "restart_script",
    "rotation",
    "structure_file",
]

Array = NDArray[np.float64]
STRUCTURE, DUMP, RESTART, MOLECULE = "structure.data", "frames.dump", "state.restart", "gas.molecule"
LAST = "last.dump"  # the frame that a run of MD-GCMC ended with

LAUNCHER = "mofmace-lmp"  # reads the model as it is, whatever the pair_style

#: Lines of each build with MACE: of ACEsuit's patch, of ML-IAP, of symmetrix.
PAIR_STYLES = {
    "mace": "pair_style mace no_domain_decomposition\npair_coeff * * {model} {elements}",
    "mliap unified": "pair_style mliap unified {model} 0\npair_coeff * * {elements}",
    "symmetrix/mace": "pair_style symmetrix/mace\npair_coeff * * {model} {elements}",
}

#: What the first frame may differ by from a direct evaluation: energy in eV/atom, components of the forces in eV/Å.
#: Single precision explains as much; a wrong model, type or unit is off by far more.
TOLERANCES = REFEREE_TOLERANCES["float32"][:2]


def model_name(filename: str) -> str:
    """Return the name that the model's file has in the job: LAMMPS goes by its ending."""
    return f"model{PurePath(filename).suffix}"


def rotation(cell: Array) -> Array:
    """Return what turns row vectors to LAMMPS's orientation: first lattice vector along x, second in the xy-plane."""
    return np.asarray(np.linalg.inv(cell) @ cellpar_to_cell(cell_to_cellpar(cell)))


def structure_file(state: MdState, gas: Gas | None = None) -> str:
    """Return a data file: box, atoms with velocities, and forces for the comparison of the first frame.

    :param state: whose elements become the types, in order of atomic number
    :param gas: molecules that are to be exchanged, with types of their own behind those
    """
    turn = rotation(state.cell)
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = (state.cell @ turn).tolist()
    elements, types = _types(state, gas)
    velocities = state.momenta / state.masses[:, None] * VELOCITY
    lines = ["# positions, velocities and the forces of a direct evaluation", "", f"{len(state)} atoms"]
    lines += [f"{len(elements)} atom types", "", f"0 {xx!r} xlo xhi", f"0 {yy!r} ylo yhi", f"0 {zz!r} zlo zhi"]
    lines += [f"{xy!r} {xz!r} {yz!r} xy xz yz", "", "Masses", ""]
    lines += [f"{i} {atomic_masses[n].item()!r}  # {chemical_symbols[n]}" for i, n in enumerate(elements, start=1)]
    named = (str(kind) for kind in types + 1)
    if gas is not None:
        molecules = np.maximum(0, (np.arange(len(state)) - state.framework_atoms) // len(gas) + 1)
        named = (f"{molecule} {kind} 0" for molecule, kind in zip(molecules, types + 1, strict=True))
    lines += ["", f"Atoms  # {_style(gas)}", "", *_rows(state.positions @ turn, named)]
    lines += ["", "Velocities", "", *_rows(velocities @ turn)]
    lines += ["", "Reference", "", *_rows(state.forces @ turn)]
    return "\n".join(lines) + "\n"


def _types(state: MdState, gas: Gas | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the atomic number of each type, and the type of each atom, counted from zero."""
    if gas is None:
        return np.unique(state.numbers, return_inverse=True)
    return types_with_gas(state.numbers[: state.framework_atoms], gas, state.loading)


def _style(gas: Gas | None) -> str:
    return "atomic" if gas is None else "full"


def _rows(vectors: Array, names: Any = None) -> list[str]:
    texts = [" ".join(repr(value) for value in vector) for vector in vectors.tolist()]
    if names is not None:
        texts = [f"{name} {text}" for name, text in zip(names, texts, strict=True)]
    return [f"{tag} {text}" for tag, text in enumerate(texts, start=1)]


def first_script(parameters: Mapping[str, Any], state: MdState, gas: Gas | None = None) -> str:
    """Return the script of the first job, which compares the first frame before it makes a step.

    :param parameters: of the run as in the worker's program ``md``, or ``md_gcmc`` with a gas; pair_style, model (name
        of its file) and wall_seconds beside, perhaps worker (its digest)
    :param state: to begin with, its energy and forces those of a direct evaluation
    :param gas: molecule to exchange, whose file is called :data:`MOLECULE`; None for dynamics alone
    """
    read = [
        "fix reference all property/atom d_x d_y d_z",
        f"read_data {STRUCTURE} fix reference NULL Reference",
        f"reset_timestep {state.step}",
    ]
    comparison = _comparison(state, len(_columns(gas))) if parameters["check_first_frame"] else []
    return _script(parameters, state, gas, read, comparison)


def restart_script(parameters: Mapping[str, Any], state: MdState, gas: Gas | None = None) -> str:
    """Return the script of a further job; see :func:`first_script`."""
    return _script(parameters, state, gas, [f"read_restart {RESTART}"], [])


def _script(
    parameters: Mapping[str, Any], state: MdState, gas: Gas | None, read: list[str], comparison: list[str]
) -> str:
    p = parameters
    elements = " ".join(chemical_symbols[number] for number in _types(state, gas)[0])
    smallest = p["minimum_distance" if gas is None else "explosion_distance"]
    guard = Guard(p["temperature"], p["max_temperature_factor"], smallest)
    limit = guard.highest_temperature(state.degrees_of_freedom)
    seconds = max(1, int(p["wall_seconds"]))
    # Jobs of another version of mofmace-lmp are no substitute in the cache for those of this one.
    lines = [f"# worker {p['worker']}"] if "worker" in p else []
    lines += [] if gas is None else _choices(p)
    lines += ["units metal", f"atom_style {_style(gas)}", "atom_modify map yes", "newton on", "boundary p p p"]
    lines += ["box tilt large", *read, PAIR_STYLES[p["pair_style"]].format(model=p["model"], elements=elements)]
    lines += ["compute pairs all pair/local dist", "compute closest all reduce min c_pairs inputs local", *comparison]
    lines += [f"timestep {p['timestep_fs'] / 1000.0!r}", f"fix bath all {_bath(p, gas is None)}"]
    lines += [] if gas is None else _exchange(p, state, gas)
    lines += ["variable closest equal c_closest", "variable temperature equal temp"]
    guards = {"temperature": f"1 v_temperature > {limit!r}"}
    guards["distance"] = f"{DISTANCE_CHECK_INTERVAL} v_closest < {guard.minimum_distance!r}"
    lines += [f"fix {name} all halt {what} error soft message yes" for name, what in guards.items()]
    interval, rows = _interval(p, state, gas)
    lines += [" ".join(["thermo_style custom step temp pe econserve vol c_closest", *_columns(gas)])]
    lines += [*rows, f"thermo {interval}", "thermo_modify format float %.14g flush yes lost error"]
    lines += [f"dump frames all custom {p['stride']} {DUMP} id type xu yu zu"]
    lines += ["dump_modify frames sort id flush yes format float %.14g"]
    lines += [f"timer timeout {seconds // 3600:d}:{seconds // 60 % 60:02d}:{seconds % 60:02d} every 1"]
    lines += [f"run {p['steps']} upto", f"write_restart {RESTART}"]
    if gas is not None:
        counts = " ".join(f"$(f_exchange[{index}]:%.14g)" for index in range(3, 7))
        lines.append(f"print 'exchanges attempted and accepted: {counts}'")
        lines.append(f"write_dump all custom {LAST} id type xu yu zu modify sort id format float %.14g")
    lines.append("print 'last step: $(step)'")  # once all is written
    return "\n".join(lines) + "\n"


def exchange_phase(state: MdState, every: int) -> int:
    """Return how long after the ends of blocks LAMMPS exchanges: first in the first step of all.

    :param state: that the run began with
    :param every: steps between two exchanges
    """
    return (state.step + 1) % every


def _interval(p: Mapping[str, Any], state: MdState, gas: Gas | None) -> tuple[str, list[str]]:
    """Return the interval of what is printed, and variables that it needs.

    Where molecules are exchanged these are the ends of blocks and the steps of the exchanges; if that is the same, also
    the steps before, so that there always are two rows between which dynamics alone changes the conserved energy.
    """
    stride, every = p["stride"], p["md_steps_per_attempt"] if gas else 0
    if every < 2:
        return str(every or stride), []
    blocks = f"stagger({every},{exchange_phase(state, every) or every - 1})"
    if stride % every == 0:
        return "v_rows", [f"variable rows equal {blocks}"]
    frames = f"stride(0,{p['steps'] + stride},{stride})"
    return "v_rows", [
        f"variable blocks equal {blocks}",
        f"variable frames equal {frames}",
        "variable rows equal (v_blocks<v_frames)*v_blocks+(v_blocks>=v_frames)*v_frames",
    ]


def _choices(p: Mapping[str, Any]) -> list[str]:
    """Variables that mofmace-lmp reads, and no other LAMMPS."""
    lines = [f"variable mofmace_{name} string {p[name]}" for name in ("device", "dtype", "head") if p.get(name)]
    return [*lines, f"variable mofmace_hole_bound equal {p['model_hole_bound']!r}"]


def _exchange(p: Mapping[str, Any], state: MdState, gas: Gas) -> list[str]:
    """Exchange the molecule; the thermostat's degrees of freedom follow the atoms.

    The fugacity is handed over as a pressure with a coefficient of one.
    """
    size, types = len(gas), len(_types(state, gas)[0])
    exchange = f"gcmc {p['md_steps_per_attempt']} {p['attempts_per_block']} 0 0 {p['lammps_seed']} {p['temperature']!r}"
    limits = f"overlap_cutoff {p['minimum_distance']!r}"
    if p.get("max_loading") is not None:
        limits += f" max {size * p['max_loading']}"  # LAMMPS counts atoms
    return [
        f"group gas type {' '.join(str(kind) for kind in range(types - size + 1, types + 1))}",
        f"molecule gas {MOLECULE}",
        f"fix exchange gas {exchange} 0 0 mol gas pressure {p['fugacity'] / 1e5!r} full_energy {limits}",
        *(f"compute_modify {temperature} dynamic/dof yes" for temperature in ("bath_temp", "thermo_temp")),
        f"variable loading equal count(gas)/{size}",
    ]


def _columns(gas: Gas | None) -> list[str]:
    """Return what is printed beside: molecules, insertions attempted and accepted, deletions attempted and accepted."""
    return [] if gas is None else ["v_loading", *(f"f_exchange[{index}]" for index in range(3, 7))]


def _bath(p: Mapping[str, Any], may_press: bool) -> str:
    """Thermostat, and barostat for a cell that is free in all six components where a pressure is given."""
    bath = f"temp {p['temperature']!r} {p['temperature']!r} {p['thermostat_time_fs'] / 1000.0!r} tchain {CHAIN_LENGTH}"
    if not may_press or p.get("pressure") is None:
        return f"nvt {bath}"
    bars = p["pressure"] / 1e5
    return f"npt {bath} tri {bars!r} {bars!r} {p['barostat_time_fs'] / 1000.0!r} mtk yes"


def _comparison(state: MdState, more: int) -> list[str]:
    """Say how far the first frame is from the direct evaluation, and end the job there if that is too far.

    A build may count energies from the isolated atoms or not; both are right. What is not a number is not near enough.

    :param more: columns that are printed later on beside those of dynamics
    """
    per_atom, force = TOLERANCES
    forces = [f"variable off_{axis} atom abs(f{axis}-d_{axis})" for axis in "xyz"]
    energies = (state.energy + state.atomic_energy, state.energy)
    near = "||".join(f"(abs(pe-({energy!r}))<={per_atom * len(state)!r})" for energy in energies)
    small = "*".join(f"(c_off[{axis}]<={force!r})" for axis in (1, 2, 3))
    figures = " ".join(f"$(c_off[{axis}]:%.6g)" for axis in (1, 2, 3))
    return [
        *forces,
        "compute off all reduce max v_off_x v_off_y v_off_z",
        # As many columns as later on, or aiida-lammps cannot read its output.
        " ".join(["thermo_style custom step pe c_off[1] c_off[2] c_off[3] c_closest", *["elapsed"] * more]),
        "run 0",
        f"print 'first frame: energy $(pe:%.14g) eV, forces off by {figures} eV/Angstrom'",
        f"variable agrees equal ({near})*{small}",
        "if '${agrees} == 0' then 'quit 1'",
        "thermo_style one",
        "uncompute off",
        "unfix reference",
    ]
