"""One potential for several simulations in one process: each asks for itself, all are answered together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from .model import Evaluation, Potential

__all__ = ["BatchedPotential", "Seat"]


@dataclass
class _Request:
    """What one simulation asks for, and the answer.

    :param seat: of the simulation
    :param configurations: to be evaluated
    :param forces: whether forces are wanted
    :param answers: one for each configuration
    :param error: raised by the potential, for the one that asked
    :param ready: set when there is an answer or an error
    """

    seat: int
    configurations: Sequence[Any]
    forces: bool
    answers: list[Evaluation] = field(default_factory=list)
    error: Exception | None = None
    ready: threading.Event = field(default_factory=threading.Event)


class BatchedPotential:
    """Evaluates in rounds: one begins when every simulation that still runs has asked for something.

    Each simulation runs in a thread of its own against its :class:`Seat`, and knows nothing of the others; the thread
    that calls :meth:`serve` is the only one that uses the potentials. Requests are put together in the order of the
    seats, so a round is the same whoever came first.

    :param own: energies and forces for each simulation, where it is evaluated by itself
    :param joint: potential that evaluates all simulations in one call; None evaluates each by itself, so that its
        numbers are bit for bit those of a run by itself
    """

    def __init__(self, own: Sequence[Potential], joint: Potential | None = None):
        self._own, self._joint = own, joint
        self.rounds = 0
        self._posts: SimpleQueue[tuple[int, _Request | None]] = SimpleQueue()

    def seat(self, index: int) -> Seat:
        """Return the potential of one simulation.

        :param index: of the simulation, each once
        """
        return Seat(index, self._own[index], self._posts)

    def serve(self) -> None:
        """Answer round after round until every simulation has left its seat."""
        running, waiting = len(self._own), dict[int, _Request]()
        while running:
            index, request = self._posts.get()
            if request is None:
                running -= 1
            else:
                waiting[index] = request
            if waiting and len(waiting) == running:
                self._answer([waiting[seat] for seat in sorted(waiting)])
                self.rounds += 1
                waiting.clear()

    def _answer(self, requests: Sequence[_Request]) -> None:
        for forces in (True, False):
            alike = [request for request in requests if request.forces is forces]
            if self._joint is None or len(alike) < 2 or not self._answered_together(self._joint, alike, forces):
                for request in alike:
                    self._answer_alone(request)
        for request in requests:
            request.ready.set()

    @staticmethod
    def _answered_together(joint: Potential, requests: Sequence[_Request], forces: bool) -> bool:
        """Answer with one call; False if it failed, for the one to blame is found by asking for each alone."""
        try:
            answers = iter(joint.evaluate([c for r in requests for c in r.configurations], forces=forces))
        except Exception:
            return False
        for request in requests:
            request.answers = [next(answers) for _ in request.configurations]
        return True

    def _answer_alone(self, request: _Request) -> None:
        try:
            request.answers = self._own[request.seat].evaluate(request.configurations, forces=request.forces)
        except Exception as error:
            request.error = error


class Seat:
    """The :class:`Potential` of one simulation of a :class:`BatchedPotential`."""

    def __init__(self, index: int, potential: Potential, posts: SimpleQueue[tuple[int, _Request | None]]):
        self.r_max, self.keeps_last = potential.r_max, getattr(potential, "keeps_last", False)
        self._index, self._posts = index, posts

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Ask, and wait until the others have asked as well.

        :raises Exception: what the potential raised for these configurations
        """
        request = _Request(self._index, configurations, forces)
        self._posts.put((self._index, request))
        request.ready.wait()
        if request.error is not None:
            raise request.error
        return request.answers

    def leave(self) -> None:
        """Say that nothing more will be asked; the others wait for it no longer."""
        self._posts.put((self._index, None))
