"""Select few diverse frames from long trajectories: SOAP, principal components, K-means or farthest point sampling."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WorkerError
from ..kernels.descriptors import Environments, SoapSettings, average_soap, close_contacts
from ..kernels.diversity import Projection, coverage, duplicates, map_points, one_thread, pick, project
from ..kernels.frames import Frames
from ..stopping import StopRequest

__all__ = ["run"]

POOL, DATASET, SELECTED = 0, 1, 2

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class _StoppedError(Exception):
    """The scheduler wants the job to end before the descriptors are complete."""


@dataclass(frozen=True)
class _Settings:
    """Parameters of the program, checked."""

    soap: SoapSettings
    environments: Environments
    n_select: int
    method: str
    quotas: dict[str, int]
    pca_components: int
    minimum_distance: float
    duplicate_tolerance: float
    perplexity: float
    max_points: int
    coverage_cells: int
    random_draws: int

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> _Settings:
        required = {"soap", "n_select", "method", "pca_components", "minimum_distance", "duplicate_tolerance", "tsne"}
        optional = {"environments", "quotas", "coverage_cells", "random_draws"}
        missing, unknown = required - set(parameters), set(parameters) - required - optional
        if missing or unknown:
            raise WorkerError("bad_input", f"parameters: missing {sorted(missing)}, unknown {sorted(unknown)}")
        settings = cls(
            soap=SoapSettings.from_parameters(parameters["soap"]),
            environments=parameters.get("environments", "all"),
            n_select=parameters["n_select"],
            method=parameters["method"],
            quotas=dict(parameters.get("quotas") or {}),
            pca_components=parameters["pca_components"],
            minimum_distance=parameters["minimum_distance"],
            duplicate_tolerance=parameters["duplicate_tolerance"],
            perplexity=parameters["tsne"]["perplexity"],
            max_points=parameters["tsne"]["max_points"],
            coverage_cells=parameters.get("coverage_cells") or parameters["n_select"],
            random_draws=parameters.get("random_draws", 20),
        )
        settings.check()
        return settings

    def check(self) -> None:
        if self.environments not in {"all", "framework"}:
            raise WorkerError("bad_input", f"environments is {self.environments!r}, give 'all' or 'framework'")
        if self.n_select < 1 or self.pca_components < 1:
            raise WorkerError("bad_input", "n_select and pca_components must be at least 1")
        if sum(self.quotas.values()) > self.n_select:
            raise WorkerError("bad_input", f"the quotas add up to more than n_select = {self.n_select}: {self.quotas}")


@dataclass(frozen=True)
class _Pool:
    """All frames that may be selected, with the file and the index in it that each comes from."""

    frames: Frames
    files: Integers
    indices: Integers

    def keep(self, mask: NDArray[np.bool_]) -> _Pool:
        kept = np.flatnonzero(mask)
        return _Pool(self.frames.select(kept), self.files[kept], self.indices[kept])


def _read_pool(names: list[str]) -> _Pool:
    parts = [Frames.load(name) for name in names]
    if not any(len(part) for part in parts):
        raise WorkerError("bad_input", f"no frames to select from in {names}")
    return _Pool(
        frames=Frames.concatenate(parts),
        files=np.concatenate([np.full(len(part), number, dtype=np.int64) for number, part in enumerate(parts)]),
        indices=np.concatenate([np.arange(len(part), dtype=np.int64) for part in parts]),
    )


def _read_dataset(name: str | None) -> Frames:
    if name is None:
        return Frames.from_atoms([])
    from ase.io import read

    return Frames.from_atoms(read(name, index=":"))


def _picks(points: Floats, occupied: Floats, groups: list[str], settings: _Settings, seed: int) -> Integers:
    """Pick for each quota in turn and then from all that is left; every pick is kept away from by the next."""
    n_select = min(settings.n_select, len(points))
    chosen = np.zeros(0, dtype=np.int64)
    wishes = [*settings.quotas.items(), ("*", n_select)]
    for pattern, number in wishes:
        matching = np.array([fnmatch(group, pattern) for group in groups], dtype=np.bool_)
        matching[chosen] = False
        candidates = np.flatnonzero(matching)
        wanted = min(number, n_select - len(chosen), len(candidates))
        held = np.concatenate([occupied, points[chosen]])
        chosen = np.concatenate([chosen, candidates[pick(settings.method, points[candidates], wanted, seed, held)]])
    return chosen


def _shortfalls(groups: list[str], quotas: dict[str, int]) -> dict[str, int]:
    """Count by how many frames each quota could not be met."""
    found = {pattern: sum(fnmatch(group, pattern) for group in groups) for pattern in quotas}
    return {pattern: quotas[pattern] - number for pattern, number in found.items() if number < quotas[pattern]}


def _write_map(
    points: Floats, pool: _Pool, dataset: Frames, picks: Integers, *, settings: _Settings, seed: int
) -> None:
    """Write the two-dimensional map; picks are always on it, the rest is thinned to the allowed number of points."""
    kinds = np.repeat(np.array([DATASET, POOL], dtype=np.int8), [len(dataset), len(pool.frames)])
    kinds[len(dataset) + picks] = SELECTED
    groups = np.array([*dataset.groups, *pool.frames.groups], dtype=np.str_)
    others = np.flatnonzero(kinds != SELECTED)
    room = max(settings.max_points - len(picks), 0)
    if len(others) > room:
        others = np.random.default_rng(seed).choice(others, size=room, replace=False)
    shown = np.sort(np.concatenate([others, len(dataset) + picks]))
    xy = map_points(points[shown], settings.perplexity, seed)
    np.savez_compressed("map.npz", xy=xy, kind=kinds[shown], group=groups[shown])


def _describe(frames: Frames, settings: _Settings, stop: StopRequest) -> NDArray[np.float32]:
    def ask(_done: int) -> None:
        if stop.reason() is not None:
            raise _StoppedError

    return average_soap(frames, settings.soap, frames.species, settings.environments, ask)


def _without_repeats(
    features: NDArray[np.float32], known: int, settings: _Settings, seed: int
) -> tuple[NDArray[np.bool_], Projection]:
    """Find the frames that repeat no earlier one, and project those.

    :param known: number of leading rows that belong to the dataset
    :return: mask of the distinct frames, shape (len(features),), and their projection
    """
    projection = project(features, settings.pca_components, seed)
    repeated = duplicates(features, projection.points, settings.duplicate_tolerance, known)
    if repeated.any():
        projection = project(features[~repeated], settings.pca_components, seed)
    return ~repeated, projection


def _seeds(seed: int) -> dict[str, int]:
    """One seed a purpose: the cells that judge the picks must not be the clusters that made them."""
    purposes = ("projection", "picks", "coverage", "map")
    return {
        name: int(value) for name, value in zip(purposes, np.random.SeedSequence(seed).generate_state(4), strict=True)
    }


def _select(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    settings = _Settings.from_parameters(inputs["parameters"])
    pool, dataset = _read_pool(inputs["files"]["frames"]), _read_dataset(inputs["files"].get("dataset"))
    total, seeds, known = len(pool.frames), _seeds(inputs["seed"]), len(dataset)
    pool = pool.keep(~close_contacts(pool.frames, settings.minimum_distance))
    if len(pool.frames) == 0:
        raise WorkerError("bad_input", f"all {total} frames have atoms nearer than {settings.minimum_distance} Å")
    refused = {"too_close": total - len(pool.frames)}
    features = _describe(Frames.concatenate([dataset, pool.frames]), settings, stop)
    distinct, projection = _without_repeats(features, known, settings, seeds["projection"])
    refused["duplicates"] = int((~distinct).sum())
    pool = pool.keep(distinct[known:])
    if len(pool.frames) == 0:
        raise WorkerError("nothing_new", f"none of {total} frames differs from the dataset; refused: {refused}")
    points = projection.points
    picks = _picks(points[known:], points[:known], pool.frames.groups, settings, seeds["picks"])
    figures = coverage(
        points[known:],
        picks,
        points[:known],
        n_cells=settings.coverage_cells,
        n_random=settings.random_draws,
        seed=seeds["coverage"],
    )
    pool.frames.select(picks).save("selected.npz")
    _write_map(points, pool, dataset, picks, settings=settings, seed=seeds["map"])
    return {
        "pool": total,
        "refused": refused,
        "selected": [_origin(pool, index) for index in picks],
        "took_all": len(picks) == len(pool.frames),
        "quota_shortfalls": _shortfalls(pool.frames.groups, settings.quotas),
        "coverage": asdict(figures),
        "explained_variance": projection.explained_variance,
    }


def _origin(pool: _Pool, index: int) -> dict[str, Any]:
    frames = pool.frames
    return {
        "file": int(pool.files[index]),
        "index": int(pool.indices[index]),
        "group": frames.groups[index],
        "loading": int(frames.loadings[index]),
        "framework_atoms": int(frames.framework_atoms[index]),
    }


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Write ``selected.npz`` and ``map.npz``.

    :param inputs: content of ``input.json``: files ``frames`` (list) and ``dataset`` (or null), see :class:`_Settings`
    :return: origin of each selected frame, coverage beside random picks, counts of what was refused
    """
    try:
        with one_thread():
            return _select(inputs, stop)
    except _StoppedError:
        return {"stopped_early": True}
