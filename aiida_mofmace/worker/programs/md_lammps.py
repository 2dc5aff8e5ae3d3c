"""Molecular dynamics as in the program ``md``, with LAMMPS as integrator, also at constant pressure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WorkerError
from ..kernels.checkpoint import load_checkpoint
from ..kernels.dynamics import MdState
from ..kernels.lammps_engine import LammpsEngine
from ..kernels.model import MaceEvaluator
from ..stopping import StopRequest
from .md import MdParameters, Simulation
from .simulation import Clock, Guard

__all__ = ["LammpsSimulation"]


#: What LAMMPS says of atoms that have flown apart, when it does not get to the next recorded frame.
_SIGNS_OF_EXPLOSION = ("Lost atoms", "Non-numeric", "non-numeric")


class _Bath:
    """What LAMMPS's thermostat and barostat have taken out; they act inside LAMMPS."""

    def __init__(self, engine: LammpsEngine):
        self._engine = engine

    def begin_step(self, state: MdState, timestep: float) -> None:
        """Leave the momenta alone."""

    end_step = begin_step

    def energy(self, state: MdState) -> float:
        """Energy in eV."""
        return self._engine.bath_energy


class LammpsSimulation(Simulation):
    """A run whose steps LAMMPS makes; the guard looks at the recorded ones only."""

    def __init__(self, parameters: MdParameters, files: Mapping[str, Any], seed: int, potential: MaceEvaluator):
        if not files.get("structure"):
            raise WorkerError(
                "bad_input", "a molecule alone runs on the engine native: a Nosé-Hoover chain fails there"
            )
        super().__init__(parameters, files, seed, potential)
        p, restart = parameters, None
        if files.get("checkpoint"):
            restart = load_checkpoint(Path(files["checkpoint"]))[0]["lammps_restart"].tobytes()
        self.engine = LammpsEngine(
            self.state,
            potential,
            temperature=p.temperature,
            timestep=p.timestep_fs,
            thermostat_time=p.thermostat_time_fs,
            pressure=p.pressure,
            barostat_time=p.barostat_time_fs,
            restart=restart,
        )
        self.thermostat = _Bath(self.engine)
        self.engine.read(self.state, 0)  # so that what is compared with ASE is what LAMMPS has

    def advance(self, stop: StopRequest) -> tuple[dict[str, Any] | None, bool, float]:
        """Go on to the last step; see :meth:`Simulation.advance`."""
        p, state = self.parameters, self.state
        guard = Guard(p.temperature, p.max_temperature_factor, p.minimum_distance)
        clock = Clock(p.checkpoint_seconds, state.step)
        explosion, stopped = None, False
        while state.step < p.steps and not stopped:
            steps = min(p.stride - state.step % p.stride, p.steps - state.step)
            explosion = self._advance_engine(steps) or guard.check(state, thorough=True)
            if explosion is not None:
                break
            if state.step % p.stride == 0:
                self.record()
            stopped = stop.reason() is not None and state.step < p.steps
            if not stopped and clock.is_due():
                self.save()
        return explosion, stopped, clock.steps_per_second(state.step)

    def _advance_engine(self, steps: int) -> dict[str, Any] | None:
        """Let LAMMPS make steps and read where it got to; say so if it lost atoms on the way."""
        try:
            self.engine.advance(steps)
        except WorkerError as error:
            if not any(sign in str(error) for sign in _SIGNS_OF_EXPLOSION):
                raise
            return {"reason": "not_finite", "step": self.state.step, "value": None, "limit": None}
        self.engine.read(self.state, steps)
        return None

    def checkpoint_arrays(self) -> dict[str, Any]:
        """Add LAMMPS's own restart file, which knows thermostat and barostat."""
        restart = np.frombuffer(self.engine.restart(), dtype=np.uint8)
        return super().checkpoint_arrays() | {"lammps_restart": restart}
