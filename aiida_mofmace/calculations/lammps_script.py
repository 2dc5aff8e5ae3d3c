"""Input of LAMMPS for molecular dynamics with a MACE model: script and structure as text, from the worker's state."""

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
from aiida_mofmace.worker.kernels.lammps_engine import VELOCITY
from aiida_mofmace.worker.programs.simulation import Guard

__all__ = [
    "DUMP",
    "LAUNCHER",
    "PAIR_STYLES",
    "RESTART",
    "STRUCTURE",
    "TOLERANCES",
    "first_script",
    "model_name",
    "restart_script",
    "rotation",
    "structure_file",
]

Array = NDArray[np.float64]
STRUCTURE, DUMP, RESTART = "structure.data", "frames.dump", "state.restart"

LAUNCHER = "mofmace-lmp"  # reads the model as it is, whatever the pair_style

#: Lines of each build with MACE: of ACEsuit's patch, of ML-IAP, of symmetrix.
PAIR_STYLES = {
    "mace": "pair_style mace no_domain_decomposition\npair_coeff * * {model} {elements}",
    "mliap unified": "pair_style mliap unified {model} 0\npair_coeff * * {elements}",
    "symmetrix/mace": "pair_style symmetrix/mace\npair_coeff * * {model} {elements}",
}

#: What the first frame may differ by from a direct evaluation: energy in eV/atom, components of the forces in eV/Å.
#: Single precision explains as much; a wrong model, type or unit is off by far more.
TOLERANCES = (1e-4, 2e-3)
_DISTANCE_CHECK_INTERVAL = 5  # steps, as in the worker


def model_name(filename: str) -> str:
    """Return the name that the model's file has in the job: LAMMPS goes by its ending."""
    return f"model{PurePath(filename).suffix}"


def rotation(cell: Array) -> Array:
    """Return what turns row vectors to LAMMPS's orientation: first lattice vector along x, second in the xy-plane."""
    return np.asarray(np.linalg.inv(cell) @ cellpar_to_cell(cell_to_cellpar(cell)))


def structure_file(state: MdState) -> str:
    """Return a data file: box, atoms with velocities, and forces for the comparison of the first frame.

    :param state: whose elements become the types, in order of atomic number
    """
    turn = rotation(state.cell)
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = (state.cell @ turn).tolist()
    elements, types = np.unique(state.numbers, return_inverse=True)
    velocities = state.momenta / state.masses[:, None] * VELOCITY
    lines = ["# positions, velocities and the forces of a direct evaluation", "", f"{len(state)} atoms"]
    lines += [f"{len(elements)} atom types", "", f"0 {xx!r} xlo xhi", f"0 {yy!r} ylo yhi", f"0 {zz!r} zlo zhi"]
    lines += [f"{xy!r} {xz!r} {yz!r} xy xz yz", "", "Masses", ""]
    lines += [f"{i} {atomic_masses[n].item()!r}  # {chemical_symbols[n]}" for i, n in enumerate(elements, start=1)]
    named = (str(kind) for kind in types + 1)
    lines += ["", "Atoms  # atomic", "", *_rows(state.positions @ turn, named)]
    lines += ["", "Velocities", "", *_rows(velocities @ turn)]
    lines += ["", "Reference", "", *_rows(state.forces @ turn)]
    return "\n".join(lines) + "\n"


def _rows(vectors: Array, names: Any = None) -> list[str]:
    texts = [" ".join(repr(value) for value in vector) for vector in vectors.tolist()]
    if names is not None:
        texts = [f"{name} {text}" for name, text in zip(names, texts, strict=True)]
    return [f"{tag} {text}" for tag, text in enumerate(texts, start=1)]


def first_script(parameters: Mapping[str, Any], state: MdState) -> str:
    """Return the script of the first job, which compares the first frame before it makes a step.

    :param parameters: of the run as in the worker's program ``md``; pair_style, model (name of its file) and
        wall_seconds beside
    :param state: to begin with, its energy and forces those of a direct evaluation
    """
    read = [
        "fix reference all property/atom d_x d_y d_z",
        f"read_data {STRUCTURE} fix reference NULL Reference",
        f"reset_timestep {state.step}",
    ]
    return _script(parameters, state, read, _comparison(state) if parameters["check_first_frame"] else [])


def restart_script(parameters: Mapping[str, Any], state: MdState) -> str:
    """Return the script of a further job; see :func:`first_script`."""
    return _script(parameters, state, [f"read_restart {RESTART}"], [])


def _script(parameters: Mapping[str, Any], state: MdState, read: list[str], comparison: list[str]) -> str:
    p = parameters
    elements = " ".join(chemical_symbols[number] for number in np.unique(state.numbers))
    guard = Guard(p["temperature"], p["max_temperature_factor"], p["minimum_distance"])
    limit = guard.highest_temperature(state.degrees_of_freedom)
    seconds = max(1, int(p["wall_seconds"]))
    lines = ["units metal", "atom_style atomic", "atom_modify map yes", "newton on", "boundary p p p"]
    lines += ["box tilt large", *read, PAIR_STYLES[p["pair_style"]].format(model=p["model"], elements=elements)]
    lines += ["compute pairs all pair/local dist", "compute closest all reduce min c_pairs inputs local", *comparison]
    lines += [f"timestep {p['timestep_fs'] / 1000.0!r}", f"fix bath all {_bath(p)}"]
    lines += ["variable closest equal c_closest", "variable temperature equal temp"]
    guards = {"temperature": f"1 v_temperature > {limit!r}"}
    guards["distance"] = f"{_DISTANCE_CHECK_INTERVAL} v_closest < {p['minimum_distance']!r}"
    lines += [f"fix {name} all halt {what} error soft message yes" for name, what in guards.items()]
    lines += ["thermo_style custom step temp pe econserve vol c_closest", f"thermo {p['stride']}"]
    lines += ["thermo_modify format float %.14g flush yes lost error"]
    lines += [f"dump frames all custom {p['stride']} {DUMP} id type xu yu zu"]
    lines += ["dump_modify frames sort id flush yes format float %.14g"]
    lines += [f"timer timeout {seconds // 3600:d}:{seconds // 60 % 60:02d}:{seconds % 60:02d} every 1"]
    lines += [f"run {p['steps']} upto", "print 'last step: $(step)'", f"write_restart {RESTART}"]
    return "\n".join(lines) + "\n"


def _bath(p: Mapping[str, Any]) -> str:
    """Thermostat, and barostat for a cell that is free in all six components where a pressure is given."""
    bath = f"temp {p['temperature']!r} {p['temperature']!r} {p['thermostat_time_fs'] / 1000.0!r} tchain {CHAIN_LENGTH}"
    if p.get("pressure") is None:
        return f"nvt {bath}"
    bars = p["pressure"] / 1e5
    return f"npt {bath} tri {bars!r} {bars!r} {p['barostat_time_fs'] / 1000.0!r} mtk yes"


def _comparison(state: MdState) -> list[str]:
    """Say how far the first frame is from the direct evaluation, and end the job there if that is too far.

    A build may count energies from the isolated atoms or not; both are right. What is not a number is not near enough.
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
        "thermo_style custom step pe c_off[1] c_off[2] c_off[3] c_closest",
        "run 0",
        f"print 'first frame: energy $(pe:%.14g) eV, forces off by {figures} eV/Angstrom'",
        f"variable agrees equal ({near})*{small}",
        "if '${agrees} == 0' then 'quit 1'",
        "thermo_style one",
        "uncompute off",
        "unfix reference",
    ]
