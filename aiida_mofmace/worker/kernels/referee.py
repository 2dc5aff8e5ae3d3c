"""MACE's own ASE calculator as the referee of an engine: the same frame must get the same energy and forces."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ..errors import WorkerError
from .model import Configuration

__all__ = ["TOLERANCES", "Referee"]

#: Allowed differences from the referee in double precision: energy in eV/atom, force in eV/Å, energy of a trial in eV.
TOLERANCES = {"float32": (1e-4, 2e-3, 1e-3), "float64": (1e-7, 1e-6, 1e-6)}


class Referee:
    """``mace.calculators.MACECalculator`` in double precision, and how far an engine may be from it.

    :param model: path of the model
    :param device: as the engine's
    :param dtype: precision of the engine
    :param head: of a multihead model; None for the only one
    """

    def __init__(self, model: str, device: str, dtype: str, head: str | None):
        self._model, self._device, self._head = model, device, head
        self._tolerances = TOLERANCES[dtype]

    @cached_property
    def _calculator(self) -> Any:
        from mace.calculators import MACECalculator

        chosen = {} if self._head is None else {"head": self._head}
        return MACECalculator(model_paths=[self._model], device=self._device, default_dtype="float64", **chosen)

    def _evaluate(self, configuration: Any) -> Atoms:
        atoms = Atoms(configuration.numbers, configuration.positions, cell=configuration.cell, pbc=True)
        atoms.calc = self._calculator
        return atoms

    def compare_frame(self, atoms: Atoms, energy: float, forces: NDArray[np.float64]) -> dict[str, float]:
        """Compare a frame.

        :param energy: total energy that the engine gives in eV
        :param forces: forces that the engine gives in eV/Å, shape (n, 3)
        :return: differences: energy in eV/atom, largest force component in eV/Å
        :raises WorkerError: kind wrong_engine if they differ by more than the precision explains
        """
        frame = self._evaluate(atoms)
        differences = {
            "energy_per_atom": abs(float(frame.get_potential_energy()) - energy) / len(frame),
            "force": float(np.abs(frame.get_forces() - forces).max()),
        }
        energy_limit, force_limit, _ = self._tolerances
        if not (differences["energy_per_atom"] <= energy_limit and differences["force"] <= force_limit):
            raise WorkerError(
                "wrong_engine",
                f"the first frame differs from ASE's MACE calculator by {differences['energy_per_atom']:.2e} eV/atom "
                f"and {differences['force']:.2e} eV/Å; the engine or its model is not what it should be",
            )
        return differences

    def compare_trial(
        self, move: str, loaded: Configuration, empty: Configuration, alone: Configuration, energy: float
    ) -> dict[str, float]:
        """Compare the energy of a trial insertion or deletion.

        :param move: what it is called
        :param loaded: configuration with the molecule
        :param empty: without it
        :param alone: the molecule alone
        :param energy: of the molecule's interaction with the rest, as the engine has it, in eV
        :return: energy of both in eV
        :raises WorkerError: kind wrong_engine if they differ by more than the precision explains
        """
        total, rest, own = (float(self._evaluate(c).get_potential_energy()) for c in (loaded, empty, alone))
        expected = total - rest - own
        if not abs(energy - expected) <= self._tolerances[2]:
            raise WorkerError(
                "wrong_engine",
                f"the first trial {move} was given {energy:.6f} eV for the molecule's interaction with the rest, "
                f"a direct evaluation gives {expected:.6f} eV; no loading of this engine can be believed",
            )
        return {"engine": energy, "direct": expected}
