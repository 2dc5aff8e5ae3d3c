"""Select few diverse frames from long trajectories: SOAP, principal components, K-means or farthest point sampling.

The frames are streamed, so their number is bounded by time and not by memory: of each frame only some coordinates and
counters stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import WorkerError
from ..kernels.descriptors import (
    FAULTS,
    Environments,
    FrameDescriptor,
    SoapSettings,
    allowed_cores,
    describe_all,
    faults,
)
from ..kernels.diversity import METHODS, CoverageMeter, pick
from ..kernels.frame_pool import FramePool
from ..kernels.frames import Frames
from ..kernels.projection import Projection, duplicates, map_points, one_thread
from ..stopping import StopRequest

__all__ = ["FATES", "Selection", "run"]

POOL, DATASET, SELECTED = 0, 1, 2
#: What became of a frame, as ``fate`` in ``fates.npz`` counts it.
FATES = ("not_selected", "selected", "duplicate", "no_centres", *FAULTS[1:])

_FRAMES_PER_PROCESS = 1000  # fewer are done sooner than a process is started

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class _StoppedError(Exception):
    """The scheduler wants the job to end before the descriptors are complete."""


@dataclass(frozen=True)
class _Settings:
    """Parameters of the program, checked."""

    soap: SoapSettings
    n_select: int
    method: str
    pca_components: int
    pca_sample: int
    minimum_distance: float
    duplicate_tolerance: float
    tsne: dict[str, Any]
    environments: Environments = "all"
    quotas: dict[str, int] | None = None
    compare: bool = False
    detached_distance: float | None = None
    coverage_cells: int | None = None
    random_draws: int = 20

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> _Settings:
        known = set(cls.__dataclass_fields__)
        required = known - {
            *("environments", "quotas", "compare", "detached_distance", "coverage_cells", "random_draws")
        }
        missing, unknown = required - set(parameters), set(parameters) - known
        if missing or unknown:
            raise WorkerError("bad_input", f"parameters: missing {sorted(missing)}, unknown {sorted(unknown)}")
        settings = cls(**parameters | {"soap": SoapSettings.from_parameters(parameters["soap"])})
        settings.check()
        return settings

    def check(self) -> None:
        if self.environments not in get_args(Environments):
            raise WorkerError(
                "bad_input", f"environments is {self.environments!r}, give one of {', '.join(get_args(Environments))}"
            )
        if self.method not in METHODS:
            raise WorkerError("bad_input", f"method is {self.method!r}, give one of {', '.join(METHODS)}")
        if min(self.n_select, self.pca_components, self.pca_sample) < 1:
            raise WorkerError("bad_input", "n_select, pca_components and pca_sample must be at least 1")
        if sum((self.quotas or {}).values()) > self.n_select:
            raise WorkerError("bad_input", f"the quotas add up to more than n_select = {self.n_select}: {self.quotas}")


class Selection:
    """One run: the dataset's frames, which are the first rows of the pool, and those to select from."""

    def __init__(self, inputs: dict[str, Any], stop: StopRequest):
        self.settings = _Settings.from_parameters(inputs["parameters"])
        self._stop = stop
        dataset = _read_dataset(inputs["files"].get("dataset"))
        self.pool = FramePool([dataset, *inputs["files"]["frames"]])
        self.known, self.total = len(dataset), len(self.pool) - len(dataset)
        if self.total == 0:
            raise WorkerError("bad_input", f"no frames to select from in {inputs['files']['frames']}")
        # One seed a purpose: the cells that judge the picks must not be the clusters that made them.
        purposes = ("sample", "projection", "picks", "coverage", "map")
        states = np.random.SeedSequence(inputs["seed"]).generate_state(len(purposes))
        self.seeds = {name: int(value) for name, value in zip(purposes, states, strict=True)}
        self.fates = np.zeros(len(self.pool), dtype=np.int8)
        self.describe = FrameDescriptor(self.settings.soap, self.pool.species, self.settings.environments)

    def _ask(self) -> None:
        if self._stop.reason() is not None:
            raise _StoppedError

    def refuse_faulty(self) -> None:
        """Mark the frames that are no physics, and those without the atoms that are to be looked from."""
        for rows, frames in self.pool.chunks(np.arange(len(self.pool))):
            found = faults(frames, self.settings.minimum_distance, self.settings.detached_distance)
            found = np.where(rows < self.known, 0, found)  # what is labelled was judged already
            self.fates[rows] = np.where(found > 0, found + FATES.index(FAULTS[1]) - 1, 0)
            self.fates[rows[~self.describe.has_centres(frames)]] = FATES.index("no_centres")
            self._ask()
        if np.all(self.fates[self.known :] > 0):
            raise WorkerError("bad_input", f"none of {self.total} frames can be used: {self.refused()}")

    def _described(self, rows: Integers) -> Iterator[tuple[Integers, NDArray[np.float32]]]:
        processes = min(allowed_cores(), 1 + len(rows) // _FRAMES_PER_PROCESS)
        for found in describe_all(self.pool.chunks(rows), self.describe, processes):
            self._ask()
            yield found

    def project(self) -> tuple[Floats, float]:
        """Describe all usable frames; the components are those of a random sample of them.

        :return: coordinates by row, NaN for refused frames, and the share of the variance that the components hold
        """
        rows = np.flatnonzero(self.fates == 0)
        size = min(len(rows), self.settings.pca_sample)
        chosen = np.random.default_rng(self.seeds["sample"]).choice(rows, size, replace=False)
        sample = np.sort(chosen)
        features = np.concatenate([found for _, found in self._described(sample)])
        projection = Projection.fit(features, self.settings.pca_components, self.seeds["projection"])
        points = np.full((len(self.pool), projection.width), np.nan)
        points[sample] = projection(features)
        del features
        for found, chunk in self._described(np.setdiff1d(rows, sample)):
            points[found] = projection(chunk)
        squares = (points[rows] ** 2).sum(axis=0)
        return points, float(squares[:-1].sum() / squares.sum()) if squares.any() else 1.0

    def refuse_duplicates(self, points: Floats) -> None:
        """Mark the frames that repeat an earlier one or one of the dataset."""
        rows = np.flatnonzero(self.fates == 0)
        repeated = duplicates(points[rows], self.settings.duplicate_tolerance, int((rows < self.known).sum()))
        self.fates[rows[repeated]] = FATES.index("duplicate")
        if np.all(self.fates[self.known :] > 0):
            raise WorkerError(
                "nothing_new", f"none of {self.total} frames differs from the dataset; refused: {self.refused()}"
            )

    def pick(self, method: str, points: Floats, groups: list[str], occupied: Floats) -> tuple[Integers, dict[str, int]]:
        """Pick for each quota in turn and then from all that is left; every pick is kept away from by the next.

        :return: the picks, and by how many frames each quota could not be met, whether they are not there or belong to
            an earlier quota as well
        """
        n_select = min(self.settings.n_select, len(points))
        quotas = [*(self.settings.quotas or {}).items()]
        chosen, numbers = np.zeros(0, dtype=np.int64), []
        for pattern, number in [*quotas, ("*", n_select)]:
            matching = np.array([fnmatch(group, pattern) for group in groups], dtype=np.bool_)
            matching[chosen] = False
            candidates = np.flatnonzero(matching)
            wanted = min(number, n_select - len(chosen), len(candidates))
            held = np.concatenate([occupied, points[chosen]])
            found = pick(method, points[candidates], wanted, self.seeds["picks"], held)
            chosen = np.concatenate([chosen, candidates[found]])
            numbers.append(len(found))
        met = zip(quotas, numbers[:-1], strict=True)
        return chosen, {pattern: wanted - number for (pattern, wanted), number in met if number < wanted}

    def refused(self) -> dict[str, int]:
        """Count the frames that could not be chosen, by reason."""
        counts = Counter(FATES[fate] for fate in self.fates[self.known :])
        return {fate: counts[fate] for fate in FATES[2:]}

    def by_group(self) -> dict[str, dict[str, int]]:
        """Count what became of the frames of each group."""
        table: dict[str, dict[str, int]] = {}
        for group, fate in zip(self.pool.groups[self.known :], self.fates[self.known :], strict=True):
            row = table.setdefault(group, dict.fromkeys(FATES, 0))
            row[FATES[fate]] += 1
        return table

    def origin(self, row: int) -> dict[str, Any]:
        """Say where a frame comes from: file and index in it, as the inputs count them."""
        return {
            "file": int(self.pool.files[row]) - 1,
            "index": int(self.pool.indices[row]),
            "group": self.pool.groups[row],
            "loading": int(self.pool.loadings[row]),
            "framework_atoms": int(self.pool.framework_atoms[row]),
        }

    def write_map(self, points: Floats) -> dict[str, int]:
        """Write the two-dimensional map: all picks, and of the rest a random sample where they are more than allowed.

        :return: how many frames are on the map, and how many were left out of it
        """
        rows = np.flatnonzero(self.fates <= FATES.index("selected"))
        kinds = np.where(self.fates[rows] > 0, SELECTED, np.where(rows < self.known, DATASET, POOL)).astype(np.int8)
        others, picks = np.flatnonzero(kinds != SELECTED), np.flatnonzero(kinds == SELECTED)
        room = max(self.settings.tsne["max_points"] - len(picks), 0)
        if len(others) > room:
            others = np.random.default_rng(self.seeds["map"]).choice(others, size=room, replace=False)
        shown = np.sort(np.concatenate([others, picks]))
        xy = map_points(points[rows[shown]], self.settings.tsne["perplexity"], self.seeds["map"])
        groups = np.array([self.pool.groups[row] for row in rows[shown]], dtype=np.str_)
        np.savez_compressed("map.npz", xy=xy, kind=kinds[shown], group=groups)
        return {"shown": len(shown), "left_out": len(rows) - len(shown)}

    def write_fates(self, distances: Floats, picked: dict[str, NDArray[np.bool_]]) -> None:
        """Write what became of every frame, with its distance from what is represented."""
        mine = slice(self.known, None)
        np.savez_compressed(
            "fates.npz",
            trajectory=self.pool.files[mine] - 1,
            index=self.pool.indices[mine],
            fate=self.fates[mine],
            distance=distances[mine],
            **{f"picked_by_{method}": mask[mine] for method, mask in picked.items()},  # type: ignore[arg-type, unused-ignore]
        )

    def run(self) -> dict[str, Any]:
        """Do all steps and write all files."""
        self.refuse_faulty()
        points, explained = self.project()
        self.refuse_duplicates(points)
        settings, usable = self.settings, np.flatnonzero(self.fates == 0)
        occupied, rows = points[usable[usable < self.known]], usable[usable >= self.known]
        groups = [self.pool.groups[row] for row in rows]
        methods = METHODS if settings.compare else (settings.method,)
        picked = {method: self.pick(method, points[rows], groups, occupied) for method in methods}
        picks = {method: found for method, (found, _) in picked.items()}
        cells = settings.coverage_cells or settings.n_select
        meter = CoverageMeter(points[rows], occupied, cells, self.seeds["coverage"])
        chosen = picks[settings.method]
        self.fates[rows[chosen]] = FATES.index("selected")
        distances = np.full(len(self.pool), np.nan)
        distances[rows] = meter.distances(chosen)
        everything = np.arange(len(self.pool))
        self.write_fates(distances, {method: np.isin(everything, rows[found]) for method, found in picks.items()})
        self.pool.read(rows[chosen]).save("selected.npz")
        return {
            "pool": self.total,
            "refused": self.refused(),
            "by_group": self.by_group(),
            "selected": [self.origin(row) for row in rows[chosen]],
            "took_all": len(chosen) == len(rows),
            "quota_shortfalls": picked[settings.method][1],
            "without_quota": _without_quota(groups, settings.quotas or {}),
            "coverage": asdict(meter.measure(chosen, settings.random_draws)),
            "comparison": {
                method: {"selected_cells": meter.cells(found), "covering_radius": meter.radius(found)}
                for method, found in picks.items()
            },
            "explained_variance": explained,
            "map": self.write_map(points),
        }


def _read_dataset(name: str | None) -> Frames:
    if name is None:
        return Frames.from_atoms([])
    from ase.io import read

    return Frames.from_atoms(read(name, index=":"))


def _without_quota(groups: list[str], quotas: dict[str, int]) -> dict[str, int]:
    """Count the usable frames of groups that no quota names; they are chosen only where the quotas leave room."""
    if not quotas:
        return {}
    return dict(Counter(group for group in groups if not any(fnmatch(group, pattern) for pattern in quotas)))


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Write ``selected.npz``, ``fates.npz`` and ``map.npz``.

    :param inputs: content of ``input.json``: files ``frames`` (list) and ``dataset`` (or null), see :class:`_Settings`
    :return: origin of each selected frame, coverage beside random picks and the other method, counts by reason
    """
    try:
        with one_thread():
            return Selection(inputs, stop).run()
    except _StoppedError:
        return {"stopped_early": True}
