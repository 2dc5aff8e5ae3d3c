"""One potential for several simulations in one process: each asks for itself, all are answered together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from .model import Evaluation, Potential

__all__ = ["BatchedPotential", "Seat"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Request:
    """What one simulation asks for.

    :param configurations: to be evaluated
    :param forces: whether forces are wanted
    """

    configurations: Sequence[Any]
    forces: bool


#: What a simulation gets for its request: an evaluation of each configuration, or what the potential raised for it.
_Answer = list[Evaluation] | Exception


class BatchedPotential:
    """Evaluates in rounds: one begins when every simulation that still runs has asked for something.

    Each simulation is a greenlet of its own, which runs until it asks its :class:`Seat` and goes on when it is
    answered; it knows nothing of the others. Nothing runs at the same time as anything else, and requests are put
    together in the order of the seats, so rounds are the same each time.

    :param own: energies and forces for each simulation, where it is evaluated by itself
    :param joint: potential that evaluates all simulations in one call; None evaluates each by itself, so that its
        numbers are bit for bit those of a run by itself
    """

    def __init__(self, own: Sequence[Potential], joint: Potential | None = None):
        self._own, self._joint = own, joint
        self.rounds = 0

    def run(self, simulations: Sequence[Callable[[Seat], T]]) -> list[T]:
        """Run simulations to their ends, side by side.

        :param simulations: one for each potential, called with its seat; what they raise ends all of them
        :return: what each has returned
        """
        here = getcurrent()
        pairs = zip(simulations, self._own, strict=True)
        runs = [greenlet(partial(simulation, Seat(potential, here))) for simulation, potential in pairs]
        results: dict[int, T] = {}
        said = {seat: run.switch() for seat, run in enumerate(runs)}
        while said:
            results |= {seat: result for seat, result in said.items() if runs[seat].dead}
            requests = {seat: request for seat, request in said.items() if not runs[seat].dead}
            answers = self._answers(requests)
            # An error holds on to what the call that failed had in memory, so nobody but its simulation may keep it.
            said = {seat: runs[seat].switch(answers.pop(seat)) for seat in requests}
            self.rounds += bool(requests)
        return [results[seat] for seat in range(len(runs))]

    def _answers(self, requests: dict[int, _Request]) -> dict[int, _Answer]:
        answers: dict[int, _Answer] = {}
        for forces in (True, False):
            alike = {seat: request for seat, request in requests.items() if request.forces is forces}
            together = self._answered_together(alike, forces) if len(alike) > 1 else None
            if together is None:
                together = {seat: self._answered_alone(seat, request) for seat, request in alike.items()}
            answers |= together
        return answers

    def _answered_together(self, requests: dict[int, _Request], forces: bool) -> dict[int, _Answer] | None:
        """Answer with one call; None if it failed, for the one to blame is found by asking for each alone."""
        if self._joint is None:
            return None
        asked = [configuration for request in requests.values() for configuration in request.configurations]
        try:
            answers = iter(self._joint.evaluate(asked, forces=forces))
        except Exception as error:
            # Said once for each message: rounds that are slow for ever should not be so without a word.
            warnings.warn(f"a call for {len(asked)} configurations failed, one by one now: {error}", stacklevel=2)
            return None
        return {seat: [next(answers) for _ in request.configurations] for seat, request in requests.items()}

    def _answered_alone(self, seat: int, request: _Request) -> _Answer:
        try:
            return self._own[seat].evaluate(request.configurations, forces=request.forces)
        except Exception as error:
            return error


class Seat:
    """The :class:`Potential` of one simulation of a :class:`BatchedPotential`.

    :param potential: that evaluates this simulation by itself
    :param table: the greenlet that answers
    """

    def __init__(self, potential: Potential, table: greenlet):
        self.r_max, self.keeps_last = potential.r_max, getattr(potential, "keeps_last", False)
        self._table = table

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Ask; the others run until all have asked.

        :raises Exception: what the potential raised for these configurations
        """
        answer: _Answer | None = self._table.switch(_Request(configurations, forces))
        try:
            if isinstance(answer, Exception):
                raise answer
            assert answer is not None
            return answer
        finally:
            answer = None
