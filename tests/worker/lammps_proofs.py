"""LAMMPS's grand-canonical ensemble where the answer is known: with its own pair potential, and with one of ours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.lammps_engine import box_of, open_lammps
from aiida_mofmace.worker.kernels.lammps_exchange import ExchangeJudge
from aiida_mofmace.worker.kernels.thermodynamics import ideal_gas_number
from aiida_mofmace.worker.programs.hybrid_lammps import LammpsHybridSimulation
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, Array, BondedMolecules, LennardJones, thermal
from .gcmc_proofs import NIST, TEMPERATURE, Figure, figure, parameters

_EDGE, _CUTOFF = 8.0, 3.0  # diameters


def own_pair_style(reduced: float, full_energy: bool, length: int = 1) -> list[Figure]:
    """Lennard-Jones vapour by LAMMPS alone: ``lj/smooth/linear``, the force-shifted potential, and ``fix gcmc``.

    :param reduced: reduced temperature
    :param full_energy: energy of the cell for each trial, as a many-body potential needs it
    """
    potential = LennardJones(r_max=_CUTOFF * 3.4)
    depth, diameter = potential.depth, potential.diameter
    density, _, energy, activity = NIST[reduced]
    temperature, edge = reduced * depth / units.kB, _EDGE * diameter
    bar = np.exp(activity) / diameter**3 * thermal(temperature) / units.Pascal / 1e5
    places = (np.arange(3) + 0.5) * edge / 3
    grid = np.array([[x, y, z] for x in places for y in places for z in places])[: int(density * _EDGE**3)]
    lammps = open_lammps()
    for command in (
        "units metal",
        "atom_modify map array",
        f"region cell block 0 {edge} 0 {edge} 0 {edge}",
        "create_box 1 cell",
        "mass 1 39.948",
        *(f"create_atoms 1 single {x} {y} {z}" for x, y, z in grid),
        f"pair_style lj/smooth/linear {_CUTOFF * diameter}",
        f"pair_coeff 1 1 {depth} {diameter}",
        f"velocity all create {temperature} 71",
        f"fix bath all nvt temp {temperature} {temperature} 0.4 tchain 3",
        f"fix exchange all gcmc 5 12 0 1 812 {temperature} 0 0 pressure {bar} {'full_energy' if full_energy else ''}",
        "compute_modify bath_temp dynamic/dof yes extra/dof 0",
        "timestep 0.008",
        "thermo 1000000",
        "run 0 post no",
    ):
        lammps.command(command)
    rows = []
    for _ in range(2000 * length):
        lammps.command("run 5 pre no post no")
        rows.append((lammps.get_natoms(), lammps.get_thermo("pe")))
    lammps.close()
    loading, energies = np.array(rows, dtype=float).T
    name = f"Lennard-Jones, T* {reduced:.2f}, LAMMPS alone{', full energy' if full_energy else ''}:"
    return [
        figure(f"{name} density", loading / _EDGE**3, density),
        figure(f"{name} energy of the cell", energies / depth, energy * density * _EDGE**3),
    ]


class _Watched(ExchangeJudge):
    """Notes how LAMMPS and how the engine has turned each inserted molecule."""

    cosines: tuple[list[float], list[float]]

    def _judge_insertion(self, frame: Any, x: Array, order: NDArray[np.int64], flags: NDArray[np.int64]) -> float:
        def cosine() -> float:
            unwrapped = x + flags @ box_of(self._lammps)
            axis = unwrapped[order[-2]] - unwrapped[order[-1]]
            return float(axis[2] / np.linalg.norm(axis))

        self.cosines[0].append(cosine())
        energy = super()._judge_insertion(frame, x, order, flags)
        self.cosines[1].append(cosine())
        return energy


def orientations(length: int = 1) -> list[Figure]:
    """Squared cosine of inserted CO2 with its template's axis: LAMMPS's own is 7/15, that of a uniform one 1/3."""
    _Watched.cosines = [], []
    gas = Gas.from_dict(CO2)
    what = parameters(
        engine="lammps",
        steps=40 * length,
        attempts_per_block=40,
        pressure=1.0 / ideal_gas_number(1.0, 20.0**3, TEMPERATURE),
    )
    cell = Atoms("Al", cell=[20.0] * 3, pbc=True)
    run = LammpsHybridSimulation(what, BondedMolecules(gas), cell, seed=1)
    run.engine.judge.__class__ = _Watched
    run.advance(StopRequest())
    names = ("LAMMPS: <cos²> of an inserted axis", "engine lammps: <cos²> of an inserted axis")
    figures = []
    for name, values, expected in zip(names, _Watched.cosines, (7 / 15, 1 / 3), strict=True):
        squares = np.square(values)
        figures.append(Figure(name, float(squares.mean()), float(squares.std() / math.sqrt(len(squares))), expected))
    return figures
