"""Thermostats: none, a Nosé-Hoover chain, Langevin's friction and noise, momenta drawn anew."""

from __future__ import annotations

import numpy as np
from ase import units
from numpy.typing import NDArray

from .dynamics import CHAIN_LENGTH, MdState, draw_momenta, redraw_momenta, remove_drift

__all__ = ["Langevin", "MomentumResampling", "NoThermostat", "NoseHooverChain"]

Array = NDArray[np.float64]
# Suzuki-Yoshida weights of fourth order (Yoshida, Phys. Lett. A 150, 262 (1990)).
_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
_WEIGHTS = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)


class NoThermostat:
    """Constant energy."""

    def begin_step(self, state: MdState, timestep: float) -> None:
        """Leave the momenta alone."""

    end_step = begin_step

    def energy(self, state: MdState) -> float:
        """Nothing is exchanged."""
        return 0.0


class NoseHooverChain:
    """Nosé-Hoover chain of three thermostats, integrated symplectically in the sense of Martyna et al.

    Mol. Phys. 87, 1117 (1996). Masses: Q1 = g kT τ², Q2 = Q3 = kT τ², with g the degrees of freedom, so that Q1
    follows the number of atoms.

    :param temperature: in K
    :param period: relaxation time τ in ASE time units
    """

    def __init__(self, temperature: float, period: float):
        self._thermal = units.kB * temperature
        self._period = period

    def masses(self, freedoms: int) -> Array:
        """Thermostat masses in eV (ASE time)², shape (3,)."""
        masses = np.full(CHAIN_LENGTH, self._thermal * self._period**2)
        masses[0] *= freedoms
        return masses

    def begin_step(self, state: MdState, timestep: float) -> None:
        """Propagate the chain by half a time step and scale the momenta."""
        freedoms = state.degrees_of_freedom
        if freedoms == 0:
            return
        q1, q2, q3 = self.masses(freedoms).tolist()
        (x1, x2, x3), (v1, v2, v3) = state.thermostat.tolist()
        thermal, exp = self._thermal, np.exp
        twice_kinetic, scale = 2.0 * state.kinetic_energy, 1.0
        for weight in _WEIGHTS:
            half, quarter, eighth = weight * timestep / 2, weight * timestep / 4, weight * timestep / 8
            v3 += quarter * (q2 * v2 * v2 - thermal) / q3
            damping = exp(-eighth * v3)
            v2 = (v2 * damping + quarter * (q1 * v1 * v1 - thermal) / q2) * damping
            damping = exp(-eighth * v2)
            v1 = (v1 * damping + quarter * (twice_kinetic - freedoms * thermal) / q1) * damping
            factor = exp(-half * v1)
            scale *= factor
            twice_kinetic *= factor * factor
            x1, x2, x3 = x1 + half * v1, x2 + half * v2, x3 + half * v3
            damping = exp(-eighth * v2)
            v1 = (v1 * damping + quarter * (twice_kinetic - freedoms * thermal) / q1) * damping
            damping = exp(-eighth * v3)
            v2 = (v2 * damping + quarter * (q1 * v1 * v1 - thermal) / q2) * damping
            v3 += quarter * (q2 * v2 * v2 - thermal) / q3
        state.momenta = state.momenta * scale
        state.thermostat = np.array([[x1, x2, x3], [v1, v2, v3]])

    end_step = begin_step

    def energy(self, state: MdState) -> float:
        """Kinetic and potential energy of the chain."""
        freedoms = state.degrees_of_freedom
        positions, velocities = state.thermostat
        kinetic = 0.5 * float(self.masses(freedoms) @ velocities**2)
        return kinetic + float(self._thermal * (freedoms * positions[0] + positions[1:].sum()))


class Langevin:
    """Friction and noise: every momentum relaxes to the Maxwell-Boltzmann distribution, exactly for any time step.

    Half a step of the Ornstein-Uhlenbeck process before and after each step of velocity Verlet (Bussi and Parrinello,
    Phys. Rev. E 75, 056707 (2007)). Ergodic however few atoms move, as a chain is not.

    :param temperature: in K
    :param period: relaxation time of the momenta in ASE time units
    :param rng: source of random numbers
    """

    def __init__(self, temperature: float, period: float, rng: np.random.Generator):
        self._temperature, self._period, self._rng = temperature, period, rng

    def begin_step(self, state: MdState, timestep: float) -> None:
        """Relax for half a time step; the energy taken out is kept in the state's ``thermostat``."""
        before, kept = state.kinetic_energy, np.exp(-0.5 * timestep / self._period)
        old, mobile = state.momenta, state.mobile
        momenta = old.copy()
        noise = draw_momenta(state.masses[mobile], self._temperature, self._rng)
        momenta[mobile] = kept * old[mobile] + np.sqrt(1.0 - kept**2) * noise
        state.momenta = remove_drift(momenta, state.masses) if state.is_free else momenta
        state.thermostat[0, 0] += before - state.kinetic_energy

    end_step = begin_step

    def energy(self, state: MdState) -> float:
        """Energy taken out so far."""
        return float(state.thermostat[0, 0])


class MomentumResampling:
    """Draw all momenta anew at intervals (Andersen, J. Chem. Phys. 72, 2384 (1980), all atoms at once).

    For few degrees of freedom, such as a lone molecule, where a Nosé-Hoover chain is not ergodic.

    :param temperature: in K
    :param interval: steps between two drawings
    :param rng: source of random numbers
    """

    def __init__(self, temperature: float, interval: int, rng: np.random.Generator):
        self._temperature, self._interval, self._rng = temperature, interval, rng

    def begin_step(self, state: MdState, timestep: float) -> None:
        """Draw the momenta anew if it is time; the energy taken out is kept in the state's ``thermostat``."""
        if state.step % self._interval == 0:
            before = state.kinetic_energy
            redraw_momenta(state, self._temperature, self._rng)
            state.thermostat[0, 0] += before - state.kinetic_energy

    def end_step(self, state: MdState, timestep: float) -> None:
        """Leave the momenta alone."""

    def energy(self, state: MdState) -> float:
        """Energy taken out so far."""
        return float(state.thermostat[0, 0])
