"""Hybrid MD-GCMC as in the program ``md_gcmc``, with LAMMPS making the steps and the exchanges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import WorkerError
from ..kernels.checkpoint import load_checkpoint
from ..kernels.exchange import MOST_CANDIDATES
from ..kernels.lammps_gcmc import GrandCanonicalLammps, LammpsTrial
from ..kernels.model import Potential
from ..kernels.referee import Referee
from ..stopping import StopRequest
from .hybrid import HybridSimulation, MdGcmcParameters
from .simulation import Clock, Guard

__all__ = ["LammpsHybridSimulation"]


class LammpsHybridSimulation(HybridSimulation):
    """One run in LAMMPS; guards look at it after each block. Further arguments are those of the other engine.

    Before anything is recorded, the first frame and the first trial of each kind are compared with the referee.

    :param referee: a direct evaluation of the same model; None to believe the engine
    """

    def __init__(
        self,
        parameters: MdGcmcParameters,
        potential: Potential,
        framework: Atoms | None,
        seed: int = 0,
        checkpoint: Path | None = None,
        *,
        folder: Path | None = None,
        referee: Referee | None = None,
    ):
        _require_possible(parameters)
        super().__init__(parameters, potential, framework, seed, checkpoint, folder=folder)
        p = parameters
        self._referee = referee
        self.comparison: dict[str, Any] = {}
        restart = None
        if checkpoint is not None:
            restart = load_checkpoint(checkpoint)[0]["lammps_restart"].tobytes()
        self.engine = GrandCanonicalLammps(
            self.state,
            potential,
            self.species[0],
            p.rules,
            self.rng,
            seed=1 if restart else int(self.rng.integers(1, 2**31 - 2)),
            every=p.md_steps_per_attempt,
            attempts=p.attempts_per_block,
            counts=(self.exchange.insertions, self.exchange.deletions),
            inspect=self._compare_trial,
            timestep=p.timestep_fs,
            thermostat_time=p.thermostat_time_fs,
            restart=restart,
        )
        self.engine.read(self.state, 0)
        if referee is not None:
            state = self.state
            energy = self.engine.potential_energy + state.atomic_energy
            self.comparison["first_frame"] = referee.compare_frame(state.atoms(), energy, state.forces)

    def advance(self, stop: StopRequest) -> tuple[dict[str, Any] | None, bool, float]:
        """Go on to the last step; see :meth:`HybridSimulation.advance`."""
        p, state = self.parameters, self.state
        guard = Guard(p.temperature, p.max_temperature_factor, p.explosion_distance)
        clock = Clock(p.checkpoint_seconds, state.step)
        explosion, stopped = None, False
        while state.step < p.steps and not stopped:
            ends = (p.stride - state.step % p.stride, p.md_steps_per_attempt - state.step % p.md_steps_per_attempt)
            steps = min(*ends, p.steps - state.step)
            drift = self._advance(steps)
            self.engine.read(state, steps)
            explosion = guard.check(state, thorough=True) or self._fragment() or drift
            if explosion is not None:
                self._keep(explosion["reason"])
                break
            self._record()
            stopped = stop.reason() is not None and state.step < p.steps
            if not stopped and clock.is_due():
                self.save()
        return explosion, stopped, clock.steps_per_second(state.step)

    def _advance(self, steps: int) -> dict[str, Any] | None:
        """Let LAMMPS make steps; say how far the conserved energy has drifted, if that is too far.

        LAMMPS exchanges molecules in the first step of a block, so the energy is watched from its end.
        """
        every, step = self.parameters.md_steps_per_attempt, self.state.step
        if every > 1 and step % every == 0:
            self.engine.advance(1)
            self.drift.begun = self.engine.conserved_energy
            steps -= 1
            step += 1
        if steps:
            self.engine.advance(steps)
        if every == 1 or (step + steps) % every:
            return None
        time = (every - 1) * self.parameters.timestep_fs * 1e-3
        return self.drift.end_piece(self.engine.conserved_energy, time, self.engine.atoms, step + steps)

    def _record(self) -> None:
        """Write down what the other engine does, at the end of each block instead of after its exchanges."""
        p, state = self.parameters, self.state
        self._keep_holes()
        if state.step % p.stride == 0:
            self.images.append(state.atoms(loading=state.loading, group=p.group))
        if state.step % p.md_steps_per_attempt == 0:
            self.series.append(
                step=state.step,
                loading=state.loading,
                potential_energy=state.energy + state.atomic_energy,
                temperature=state.temperature,
            )

    def _keep_holes(self) -> None:
        """Keep configurations in which a hole of the model was met."""
        for numbers, positions, cell in self.engine.take_holes():
            if len(self.exchange.candidates) >= MOST_CANDIDATES:
                break
            atoms = Atoms(numbers, positions, cell=cell, pbc=True)
            loading = (len(atoms) - self.state.framework_atoms) // len(self.gases[0])
            atoms.info = {"step": self.state.step, "framework_atoms": self.state.framework_atoms, "loading": loading}
            self.exchange.candidates.append(atoms)

    def _compare_trial(self, move: str, trial: LammpsTrial) -> None:
        """Have the referee look at the first trial of a kind."""
        if self._referee is not None:
            self.comparison[move] = self._referee.compare_trial(move, **vars(trial))

    def remarks(self) -> dict[str, Any]:
        """Return what the referee found; a kind of trial that did not occur is missing."""
        return {"comparison": self.comparison}

    def checkpoint_arrays(self) -> dict[str, Any]:
        """Add LAMMPS's own restart file, which knows its thermostat and its random numbers."""
        restart = np.frombuffer(self.engine.restart(), dtype=np.uint8)
        return super().checkpoint_arrays() | {"lammps_restart": restart}


def _require_possible(parameters: MdGcmcParameters) -> None:
    """Refuse what this engine cannot do.

    :raises WorkerError: kind bad_input
    """
    p = parameters
    others = [move for move, frequency in p.moves.items() if move != "exchange" and frequency > 0]
    reasons = {
        "one kind of molecule": len(p.gases) > 1,
        "framework_flexible: true": not p.framework_flexible,
        "gas_flexible: true": not p.gas_flexible,
        "thermostat: nose_hoover": p.thermostat != "nose_hoover",
        "no moves but exchange": bool(others),
        "trial_places: 1": p.trial_places > 1,
    }
    wanted = [name for name, is_broken in reasons.items() if is_broken]
    if wanted:
        raise WorkerError("bad_input", f"the engine lammps wants {', '.join(wanted)}; or take the engine native")
