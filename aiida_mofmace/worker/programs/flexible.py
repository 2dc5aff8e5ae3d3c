"""Parameters of simulations whose cell may change, and the moves that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import units
from numpy.typing import NDArray

from ..errors import WorkerError
from ..kernels.cell_moves import CELL_SHAPES, CellMoves
from ..kernels.exchange import MoveCounts
from ..kernels.model import Potential
from .simulation import SimulationParameters

__all__ = ["FlexibleCellParameters"]


@dataclass(frozen=True, kw_only=True)
class FlexibleCellParameters(SimulationParameters):
    """Parameters of any dynamics between moves of the cell.

    :param flexible_cell: none, isotropic, anisotropic or full (:class:`CellMoves`)
    :param cell_step: length of the longest strain that is tried
    :param md_steps_per_cell_move: steps of dynamics between two moves of the cell
    :param max_volume_change: relative change of the volume since the start that ends a run
    """

    flexible_cell: str = "none"
    cell_step: float = 0.02
    md_steps_per_cell_move: int = 10
    max_volume_change: float = 0.3

    def check(self) -> None:
        """Refuse values that no simulation can have.

        :raises WorkerError: kind bad_input
        """
        super().check()
        self.require_positive("cell_step", "md_steps_per_cell_move", "max_volume_change")
        if self.flexible_cell not in CELL_SHAPES:
            raise WorkerError("bad_input", f"flexible_cell must be one of {', '.join(CELL_SHAPES)}")

    def cell_moves(
        self,
        pressure: float | None,
        potential: Potential,
        rng: np.random.Generator,
        start: NDArray[np.float64],
        counts: Mapping[str, int],
    ) -> CellMoves | None:
        """Return the moves of the cell; None where it is to stay.

        :param pressure: in Pa, None for constant volume
        :param start: lattice vectors at the start as rows in Å, shape (3, 3)
        :param counts: what became of earlier moves
        """
        if pressure is None or self.flexible_cell == "none":
            return None
        return CellMoves(
            shape=self.flexible_cell,
            pressure=pressure * units.Pascal,
            thermal=units.kB * self.temperature,
            largest_strain=self.cell_step,
            smallest_height=2.0 * self.minimum_distance,
            largest_change=self.max_volume_change,
            start=np.array(start),
            potential=potential,
            rng=rng,
            counts=MoveCounts(**counts),
        )

    def is_cell_move_due(self, step: int) -> bool:
        """Whether a move of the cell follows this step."""
        return step % self.md_steps_per_cell_move == 0
