"""How well few picks cover a pool of real MD frames: random picks, K-means and farthest point sampling.

python benchmarks/selection_coverage.py --pool FOLDER                # one pool, seeds of the choice and of the cells
python benchmarks/selection_coverage.py --pool FOLDER --halves 12    # picks from one half, judged on both

The pool is MIL-120 with 0, 1 and 3 CO2 at 300 and 500 K, 5 ps each with the starter model; what FOLDER lacks is made.
Farthest point sampling begins with a fixed frame and has no seed: only another pool can give it another result. So with
--halves the time of each run is cut into blocks, half of which, drawn at random, are what is picked from. The picks are
judged by the cells of that half and by those of the other half, no frame of which the picks were drawn from.
"""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from aiida_mofmace.protocols import load_gas
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.descriptors import FrameDescriptor, SoapSettings
from aiida_mofmace.worker.kernels.diversity import CoverageMeter, clusters, nearest_distances, pick
from aiida_mofmace.worker.kernels.frame_pool import FramePool
from aiida_mofmace.worker.kernels.projection import Projection, duplicates, one_thread
from aiida_mofmace.worker.programs.md import run
from aiida_mofmace.worker.stopping import StopRequest

REPOSITORY = Path(__file__).parents[1]
STEPS, EQUILIBRATION, STRIDE = 10000, 1000, 5
NUMBERS = (200, 500, 1000, 2000)
CELLS = (200, 1000)
METHODS = ("random", "kmeans", "fps")
SEEDS = range(5)
BLOCKS = 10  # of each run's time
RANDOM_DRAWS = 10  # random sets of one size, whose mean is taken
RANDOM_NUMBERS = (*range(100, 1000, 50), *range(1000, 3000, 250), *range(3000, 5400, 500))


def make_pool(folder: Path) -> list[str]:
    """Run the MD, each in a folder of its own, and return the files of frames."""
    from ase.io import read

    framework = read(REPOSITORY / "examples" / "MIL-120_primitive_40atoms.cif")
    protocol = yaml.safe_load((REPOSITORY / "aiida_mofmace" / "protocols" / "fast.yaml").read_text())
    names = []
    for temperature in (300.0, 500.0):
        for loading in (0, 1, 3):
            place = folder / f"md_{temperature:g}K_{loading}"
            names.append(str(place / "frames.npz"))
            if Path(names[-1]).exists():
                continue
            place.mkdir(parents=True)
            os.chdir(place)
            framework.write("structure.extxyz")
            parameters = {
                **protocol["md"],
                **{"temperature": temperature, "loading": loading, "gas": load_gas("CO2"), "group": place.name},
                **{"steps": STEPS, "equilibration_steps": EQUILIBRATION, "stride": STRIDE},
            }
            files = {"model": str(STARTER_MODEL), "structure": "structure.extxyz"}
            inputs = {"seed": len(names), "device": "cpu", "dtype": "float32", "files": files, "parameters": parameters}
            results = run(inputs, StopRequest())
            print(
                f"# {place.name}: {results['n_frames']} frames, {results['steps_per_second']:.0f} steps/s", flush=True
            )
    return names


def coordinates(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates in which frames are selected, shape (n, 51), SOAP as in the protocol `paper`, and blocks.

    :return: coordinates, and for each frame its run and the block of that run's time, shape (n, 2)
    """
    selection = yaml.safe_load((REPOSITORY / "aiida_mofmace" / "protocols" / "paper.yaml").read_text())["selection"]
    pool = FramePool(names)
    describe = FrameDescriptor(SoapSettings.from_parameters(selection["soap"]), pool.species)
    features = np.concatenate([describe(frames) for _, frames in pool.chunks(np.arange(len(pool)))])
    sample = np.random.default_rng(0).choice(len(pool), min(len(pool), selection["pca_sample"]), replace=False)
    points = Projection.fit(features[np.sort(sample)], selection["pca_components"], 0)(features)
    repeated = duplicates(points, selection["duplicate_tolerance"], 0)
    squares = (points**2).sum(axis=0)
    held = squares[:-1].sum() / squares.sum()
    print(f"# pool: {len(points)} frames, {repeated.sum()} duplicates; components hold {100 * held:.3f} %", flush=True)
    blocks = np.column_stack([pool.files, BLOCKS * pool.indices // np.bincount(pool.files)[pool.files]])
    return points[~repeated], blocks[~repeated]


def report(method: str, number: int, rows: list[list[float]]) -> None:
    means, deviations = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    digits = (1, 1, 4, 4, 4, 0, 0)[: len(means)]
    figures = [
        f"{mean:8.{places}f} ± {deviation:<6.{places}f}"
        for mean, deviation, places in zip(means, deviations, digits, strict=True)
    ]
    print(f"{method:8}{number:6d}  " + " ".join(figures).rstrip(), flush=True)


def picks_by(method: str, points: np.ndarray, number: int, seed: int) -> np.ndarray:
    if method == "random":
        return np.random.default_rng(seed).choice(len(points), number, replace=False)
    return pick(method, points, number, seed, points[:0])


def one_pool(points: np.ndarray) -> None:
    """Print the table of one pool; means over the seed of the choice and of the cells."""
    meters = [[CoverageMeter(points, points[:0], cells, 1000 + seed) for cells in CELLS] for seed in SEEDS]
    print(f"# {platform.machine()}, {os.cpu_count()} cores; mean ± standard deviation over {len(SEEDS)} seeds")
    print(f"# method   n   cells of {CELLS[0]}  cells of {CELLS[1]}   distance to the nearest pick:", end=" ")
    print("mean, 99 %, largest")
    for number in NUMBERS:
        for method in METHODS:
            rows = []
            for seed, pair in zip(SEEDS, meters, strict=True):
                picks = picks_by(method, points, number, seed)
                distances = pair[0].distances(picks)
                cells = [float(meter.cells(picks)) for meter in pair]
                rows.append([*cells, distances.mean(), np.quantile(distances, 0.99), distances.max()])
            report(method, number, rows)


@dataclass
class Jury:
    """K-means cells of some frames, by which picks from these or from other frames are judged."""

    points: np.ndarray
    centres: list[np.ndarray]

    @classmethod
    def of(cls, points: np.ndarray, seed: int) -> Jury:
        """Divide the frames into each number of cells."""
        return cls(points, [clusters(points, cells, seed)[1] for cells in CELLS])

    def cells(self, picked: np.ndarray) -> list[int]:
        """Count the cells of each division that hold a pick; a pick is in the cell whose centre is nearest."""
        return [len(np.unique(_nearest(picked, centres))) for centres in self.centres]

    def figures(self, picked: np.ndarray) -> list[float]:
        """Return the cells that hold a pick, and mean, 99 % quantile and largest distance to the nearest pick."""
        distances = nearest_distances(self.points, picked)
        return [*self.cells(picked), distances.mean(), np.quantile(distances, 0.99), distances.max()]


def _nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.argmin((centres**2).sum(axis=1) - 2.0 * points @ centres.T, axis=1)


def random_number_for(cells: float, curve: np.ndarray, largest: int) -> float:
    """Return how many random picks hold as many cells; the largest number tried where none does."""
    rising = np.maximum.accumulate(curve)
    return float(largest) if cells > rising[-1] else float(np.interp(cells, rising, RANDOM_NUMBERS))


def halve(blocks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw half of the blocks of each run, shape (n,)."""
    chosen = np.zeros(len(blocks), dtype=np.bool_)
    for run_number in np.unique(blocks[:, 0]):
        drawn = rng.choice(BLOCKS, BLOCKS // 2, replace=False)
        chosen |= (blocks[:, 0] == run_number) & np.isin(blocks[:, 1], drawn)
    return chosen


def judge_half(points: np.ndarray, blocks: np.ndarray, seed: int) -> dict[tuple[str, str, int], list[float]]:
    """Pick from a random half and judge by both halves.

    :return: by jury, method and number of picks: cells, distances, and for each division how many random picks hold
        as many cells
    """
    chosen = halve(blocks, np.random.default_rng(seed))
    own, other = points[chosen], points[~chosen]
    juries = {"own half": Jury.of(own, 1000 + seed), "other half": Jury.of(other, 2000 + seed)}
    rng = np.random.default_rng(3000 + seed)
    draws = [[own[rng.choice(len(own), n, replace=False)] for _ in range(RANDOM_DRAWS)] for n in RANDOM_NUMBERS]
    curves = {
        name: np.array([np.mean([jury.cells(draw) for draw in same], axis=0) for same in draws])
        for name, jury in juries.items()
    }
    found = {}
    for number in NUMBERS:
        for method in METHODS:
            picked = own[picks_by(method, own, number, seed)]
            for name, jury in juries.items():
                figures = jury.figures(picked)
                largest = RANDOM_NUMBERS[-1]
                alike = [random_number_for(figures[k], curves[name][:, k], largest) for k in range(len(CELLS))]
                found[name, method, number] = [*figures, *alike]
    return found


def many_pools(points: np.ndarray, blocks: np.ndarray, n_halves: int) -> None:
    """Print the tables of resampled pools, and whether few picks cover more than many random ones."""
    halves = []
    for seed in range(n_halves):
        halves.append(judge_half(points, blocks, seed))
        print(f"# half {seed + 1} of {n_halves} done", flush=True)
    print(f"# {platform.machine()}, {os.cpu_count()} cores; mean ± standard deviation over {n_halves} random halves")
    for jury in ("own half", "other half"):
        print(f"# judged by frames of the {jury}; as many cells as so many random picks (of {CELLS[0]}, of {CELLS[1]})")
        print("# method   n   cells, cells, distance to the nearest pick (mean, 99 %, largest), random picks alike")
        for number in NUMBERS:
            for method in METHODS:
                report(method, number, [half[jury, method, number] for half in halves])
        for few, many in ((200, 500), (200, 1000), (500, 1000), (500, 2000), (1000, 2000)):
            for method in METHODS[1:]:
                pairs = [(half[jury, method, few][:2], half[jury, "random", many][:2]) for half in halves]
                compare(f"{few} {method} - {many} random", np.array(pairs))


def compare(title: str, pairs: np.ndarray) -> None:
    """Print by how many cells one set of picks holds more than the other, in the same half."""
    more = pairs[:, 0] - pairs[:, 1]
    parts = [
        f"of {cells}: {more[:, k].mean():+7.1f} ± {more[:, k].std(ddof=1):<5.1f} more in {(more[:, k] > 0).sum():2d}"
        for k, cells in enumerate(CELLS)
    ]
    print(f"{title:28} cells " + ", ".join(parts) + f" of {len(more)} halves", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--halves", type=int, metavar="N", help="resampled pools, at least 2; default: one whole pool")
    arguments = parser.parse_args()
    with one_thread():
        points, blocks = coordinates(make_pool(arguments.pool.resolve()))
        if arguments.halves is None:
            one_pool(points)
        else:
            many_pools(points, blocks, arguments.halves)


if __name__ == "__main__":
    main()
