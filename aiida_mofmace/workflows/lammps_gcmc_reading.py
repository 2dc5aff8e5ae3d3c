"""What a job of LAMMPS has left of a run of MD-GCMC, joined to what was before."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from aiida import orm
from ase import Atoms
from ase.data import atomic_masses
from numpy.typing import NDArray

from aiida_mofmace.calculations import lammps_script
from aiida_mofmace.parsers.lammps_output import DumpedFrame, LammpsOutput, parse_dump
from aiida_mofmace.worker.kernels.checkpoint import save_checkpoint
from aiida_mofmace.worker.kernels.dynamics import MdState
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import cell_volume
from aiida_mofmace.worker.kernels.lammps_molecule import types_with_gas
from aiida_mofmace.worker.kernels.thermodynamics import chemical_potential, ideal_gas_number
from aiida_mofmace.worker.lmp_gcmc import CANDIDATES
from aiida_mofmace.worker.programs.gcmc_averages import RunRecord, summarise
from aiida_mofmace.worker.programs.guards import DriftGuard, broken_molecule, detached_atom
from aiida_mofmace.worker.programs.hybrid import MdGcmcParameters
from aiida_mofmace.worker.programs.simulation import Guard, describe_explosion

from .lammps_jobs import explosion_of, first_frame, has_wrong_frame, read_checkpoint, read_output

__all__ = ["GcmcReading"]

_ERRORS = "_scheduler-stderr.txt"
_ENGINE = "lammps of aiida-lammps"  # whose checkpoints hold a restart file of LAMMPS
_MOVES = ("insertion", "deletion")
_COLUMNS = ("step", "loading", "potential_energy", "temperature")
_PLACES = (0, 6, 2, 1)  # of these among the columns that LAMMPS prints
_FIRST_COUNT = 7  # column of the insertions attempted; accepted ones and the deletions follow
_NO_COUNTS = {"attempted": 0, "overlap": 0, "evaluated": 0, "holes": 0, "accepted": 0}
_WRONG = "ERROR (wrong_engine): "


class GcmcReading:
    """What one job has left, joined to what was before.

    :param retrieved: its files
    :param checkpoint: that it began with
    :param parameters: of the run
    """

    def __init__(self, retrieved: orm.FolderData, checkpoint: orm.SinglefileData, parameters: Mapping[str, Any]):
        self._p, self._repository = parameters, retrieved.base.repository
        self._names = self._repository.list_object_names()
        self._state, self._arrays, self._values = read_checkpoint(checkpoint)
        self._errors = (self._content(_ERRORS) or b"").decode(errors="replace")
        self._gas = Gas.from_dict(parameters["gas"])
        self._back = lammps_script.rotation(self._state.cell).T
        self.output: LammpsOutput = read_output(retrieved)
        self._first_step = int(self._values.get("step", self._state.step))
        window = 1e-3 * parameters.get("energy_drift_window_fs", MdGcmcParameters.energy_drift_window_fs)
        self.drift = DriftGuard(parameters.get("max_energy_drift"), window)
        self.explosion = self._exploded()
        self.images: list[Atoms] = []
        self.candidates = self._holes()
        self._take_frames()
        self.series = self._joined_series()
        self.counts = self._joined_counts()

    @property
    def is_sound(self) -> bool:
        """Whether the job came to an end from which the next one may go on."""
        return self.explosion is None and self.output.last_step is not None and self.mistake is None

    @property
    def restart(self) -> bytes | None:
        """The restart file of LAMMPS, if it came back."""
        return self._content(lammps_script.RESTART)

    @property
    def mistake(self) -> str | None:
        """What LAMMPS or its model has got wrong, as far as it was compared; None if all is right."""
        if _WRONG in self._errors:
            return self._errors.partition(_WRONG)[2].partition("\n")[0]
        frame = first_frame(self.output, self._state)
        if has_wrong_frame(frame):
            return f"the first frame differs from a direct evaluation: {frame}"
        if len(self._blocks()) and self.output.launcher is None:
            return "no trial was compared with a direct evaluation, for this was not done by mofmace-lmp"
        return None

    @property
    def failure(self) -> str:
        """What LAMMPS or mofmace-lmp said as they broke off; empty if nothing."""
        found = re.search(r"^(ERROR|Traceback).*", self._errors, re.MULTILINE)
        return self.output.error or (found[0] if found else "")

    def _content(self, name: str) -> bytes | None:
        return self._repository.get_object_content(name, mode="rb") if name in self._names else None

    def _guard(self) -> Guard:
        p = self._p
        return Guard(p["temperature"], p["max_temperature_factor"], p["explosion_distance"])

    def _exploded(self) -> dict[str, Any] | None:
        steps = self.output.thermo[:, 0].max(initial=self._first_step)
        found = explosion_of(self.output, self._guard(), self._state, int(steps))
        drift = self._drifted()
        return drift if drift is not None and (found is None or drift["step"] < found["step"]) else found

    def _drifted(self) -> dict[str, Any] | None:
        """Say where the conserved energy drifted too far between an exchange and the end of its block."""
        p, earlier = self._p, self._values.get("drift", {})
        self.drift.change, self.drift.time = earlier.get("change", 0.0), earlier.get("time", 0.0)
        every, begun, rows = p["md_steps_per_attempt"], None, self._blocks()
        phase = lammps_script.exchange_phase(self._state, every)
        end = 0 if phase else every - 1
        if every == 1:  # no step without an exchange
            return None
        for step, energy, loading in rows[np.isfinite(rows).all(axis=1)][:, [0, 3, 6]].tolist():
            if step % every == phase:
                begun, self.drift.begun = step, energy
            elif begun is not None and step % every == end:
                atoms = self._state.framework_atoms + round(loading) * len(self._gas)
                time = (step - begun) * p["timestep_fs"] * 1e-3
                drift = self.drift.end_piece(energy, time, atoms, int(step))
                if drift is not None:
                    return drift
                begun = None
        return None

    def _holes(self) -> list[Atoms]:
        """Frames in which the model has a hole, turned back to the orientation of the framework."""
        content = self._content(CANDIDATES)
        if content is None:
            return []
        frames = Frames.load(io.BytesIO(content))
        images = [frames.atoms(index) for index in range(len(frames))]
        for atoms in images:
            atoms.set_cell(atoms.cell.array @ self._back)
            atoms.positions = atoms.positions @ self._back
            atoms.info |= {"step": self._first_step, "group": f"{self._p['group']}_hole"}
        return images

    def _take_frames(self) -> None:
        """Take the frames up to where something came off, and keep that one as a candidate."""
        thermo = self.output.thermo
        drifted = self.explosion["step"] if self.explosion and self.explosion["reason"] == "drift" else np.inf
        energies = dict(zip(thermo[:, 0].astype(int).tolist(), thermo[:, 2].tolist(), strict=True))
        for dumped in parse_dump((self._content(lammps_script.DUMP) or b"").decode(errors="replace")):
            if dumped.step <= self._first_step or not math.isfinite(energies.get(dumped.step, math.nan)):
                continue
            state = self._frame(dumped)
            if dumped.step >= drifted:
                self._keep(state, "drift")
                return
            self.explosion = (
                broken_molecule(state, [self._gas])
                or detached_atom(state, self._arrays["bonded"], self._p.get("longest_bond"))
                or self.explosion
            )
            if self.explosion is not None and self.explosion["step"] == dumped.step:
                self._keep(state, self.explosion["reason"])
                return
            self.images.append(state.atoms(loading=state.loading, group=self._p["group"]))
            self.images[-1].info["energy"] = energies[dumped.step]
        for dumped in parse_dump((self._content(lammps_script.LAST) or b"").decode(errors="replace")):
            if self.explosion is not None and np.all(np.isfinite(dumped.positions)):
                self._keep(self._frame(dumped), self.explosion["reason"])

    def _keep(self, state: MdState, reason: str) -> None:
        """Keep a frame that tripped a guard."""
        self.candidates.append(state.atoms(loading=state.loading, group=f"{self._p['group']}_{reason}"))
        self.candidates[-1].info["energy"] = math.nan

    def _frame(self, dumped: DumpedFrame) -> MdState:
        framework = self._state.framework_atoms
        elements, _ = types_with_gas(self._state.numbers[:framework], self._gas, 0)
        numbers = elements[dumped.types - 1]
        return replace(
            self._state,
            numbers=numbers,
            masses=atomic_masses[numbers],
            positions=dumped.positions @ self._back,
            cell=dumped.cell @ self._back,
            counts=np.array([(len(numbers) - framework) // len(self._gas)]),
            step=dumped.step,
        )

    def _blocks(self) -> NDArray[np.float64]:
        """Return what LAMMPS printed while molecules were exchanged, shape (n, 11)."""
        rows = self.output.thermo
        return rows if rows.shape[1] > _FIRST_COUNT else np.zeros((0, _FIRST_COUNT + 4))

    def _joined_series(self) -> dict[str, NDArray[Any]]:
        """Put the blocks of this job behind those before, up to where the run is to be believed."""
        rows = self._blocks()
        rows = rows[np.isfinite(rows).all(axis=1)]
        step = rows[:, 0].astype(np.int64)
        last = np.inf if self.explosion is None else self.explosion["step"] - 1
        rows = rows[(step > self._first_step) & (step <= last) & (step % self._p["md_steps_per_attempt"] == 0)]
        new = {name: rows[:, place] for name, place in zip(_COLUMNS, _PLACES, strict=True)}
        _, first = np.unique(new["step"], return_index=True)
        return {name: np.concatenate([self._arrays[f"series_{name}"], new[name][first]]) for name in _COLUMNS}

    def _joined_counts(self) -> dict[str, dict[str, int]]:
        """Return what became of all trials; LAMMPS counts attempts and acceptances from the very first step itself."""
        earlier = self._values["counts"] if "lammps_restart" in self._arrays else {}
        joined = {move: _NO_COUNTS | earlier.get(move, {}) for move in _MOVES}
        made = self.output.exchanges or tuple(self._blocks()[-1:, _FIRST_COUNT:].astype(int).ravel().tolist())
        for index, move in enumerate(_MOVES):
            if made:
                joined[move] |= {"attempted": made[2 * index], "accepted": made[2 * index + 1]}
            for what, number in self.output.counts.get(move, {}).items():
                joined[move][what] += number
        return joined

    def _ideal_gas(self) -> dict[str, Any]:
        """Return energy and error of a molecule alone, with the sweeps of all jobs together."""
        parts = [part for part in (self._values.get("ideal_gas"), self.output.ideal_gas) if part is not None]
        sweeps = sum(part[2] for part in parts)
        if not sweeps:
            return {"energy": None, "energy_error": None, "sweeps": 0}
        energy = sum(part[0] * part[2] for part in parts) / sweeps
        error = math.sqrt(sum((part[1] * part[2]) ** 2 for part in parts)) / sweeps
        return {"energy": energy, "energy_error": error, "sweeps": sweeps}

    def _comparison(self) -> dict[str, Any]:
        """Return how far the engine was from a direct evaluation, the first of each kind of the whole run."""
        found = {move: {"engine": given, "direct": direct} for move, (given, direct) in self.output.trials.items()}
        frame = first_frame(self.output, self._state)
        earlier: dict[str, Any] = self._values.get("comparison", {})
        return found | ({"first_frame": frame} if frame else {}) | earlier

    def results(self) -> dict[str, Any]:
        """Return figures named as those of the worker's program ``md_gcmc``."""
        p, gas, volume = self._p, self._ideal_gas(), cell_volume(self._state.cell)
        ideal = {
            "number": ideal_gas_number(p["fugacity"], volume, p["temperature"]),
            "chemical_potential": chemical_potential(p["temperature"], p["fugacity"], self._gas.mass),
            "energy": gas["energy"],
            "energy_error": gas["energy_error"],
        }
        components = {self._gas.name: {"fugacity": p["fugacity"], "ideal_gas": ideal}}
        results: dict[str, Any] = summarise(RunRecord(p["temperature"], self.series, self.counts, components))
        done = self.output.last_step if self.is_sound and self.restart is not None else self._first_step
        results |= {
            "n_frames": len(self.images),
            "steps_done": done if self.explosion is None else self.explosion["step"],
            "steps_total": p["steps"],
            "steps_per_second": self.output.steps_per_second,
            "comparison": self._comparison(),
            "engine": _ENGINE,
            "versions": {"lammps": self.output.version, **(self.output.launcher or {})},
        }
        if self.explosion is not None:
            results["explosion"] = self.explosion | {"message": describe_explosion(self.explosion)}
        told = {"mistake": self.mistake, "error": self.failure}
        return results | {name: text for name, text in told.items() if text}

    def checkpoint(self) -> orm.SinglefileData:
        """Return what the next job goes on from: the first frame, the series, and LAMMPS's own restart file."""
        assert self.restart is not None and self.output.last_step is not None
        arrays = self._state.to_arrays() | {f"series_{name}": column for name, column in self.series.items()}
        arrays |= {"bonded": self._arrays["bonded"], "lammps_restart": np.frombuffer(self.restart, dtype=np.uint8)}
        gas = self._ideal_gas()
        values = {
            "program": "md_gcmc",
            "engine": _ENGINE,
            "step": self.output.last_step,
            "counts": self.counts,
            "comparison": self._comparison(),
            "drift": self.drift.to_dict(),
            "ideal_gas": [gas["energy"], gas["energy_error"], gas["sweeps"]] if gas["sweeps"] else None,
        }
        with TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.npz"
            save_checkpoint(path, arrays, values)
            return orm.SinglefileData(io.BytesIO(path.read_bytes()), filename=path.name)
