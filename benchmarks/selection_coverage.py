"""How well few picks cover a pool of real MD frames: random picks, K-means and farthest point sampling.

python benchmarks/selection_coverage.py --pool FOLDER

The pool is MIL-120 with 0, 1 and 3 CO2 at 300 and 500 K, 5 ps each with the starter model; what FOLDER lacks is made.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

import numpy as np
import yaml

from aiida_mofmace.protocols import load_gas
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.descriptors import FrameDescriptor, SoapSettings
from aiida_mofmace.worker.kernels.diversity import CoverageMeter, pick
from aiida_mofmace.worker.kernels.frame_pool import FramePool
from aiida_mofmace.worker.kernels.projection import Projection, duplicates, one_thread
from aiida_mofmace.worker.programs.md import run
from aiida_mofmace.worker.stopping import StopRequest

REPOSITORY = Path(__file__).parents[1]
STEPS, EQUILIBRATION, STRIDE = 10000, 1000, 5
NUMBERS = (200, 500, 1000, 2000)
CELLS = (200, 1000)
SEEDS = range(5)


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


def coordinates(names: list[str]) -> np.ndarray:
    """Return the coordinates in which frames are selected, shape (n, 51), SOAP as in the protocol `paper`."""
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
    return points[~repeated]


def report(method: str, number: int, rows: list[list[float]]) -> None:
    means, deviations = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    figures = [
        f"{mean:8.{digits}f} ± {deviation:<6.{digits}f}"
        for mean, deviation, digits in zip(means, deviations, (1, 1, 4, 4, 4), strict=True)
    ]
    print(f"{method:8}{number:6d}  " + " ".join(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    with one_thread():
        points = coordinates(make_pool(parser.parse_args().pool.resolve()))
        meters = [[CoverageMeter(points, points[:0], cells, 1000 + seed) for cells in CELLS] for seed in SEEDS]
        print(f"# {platform.machine()}, {os.cpu_count()} cores; mean ± standard deviation over {len(SEEDS)} seeds")
        print(f"# method   n   cells of {CELLS[0]}  cells of {CELLS[1]}   distance to the nearest pick:", end=" ")
        print("mean, 99 %, largest")
        for number in NUMBERS:
            for method in ("random", "kmeans", "fps"):
                rows = []
                for seed, pair in zip(SEEDS, meters, strict=True):
                    if method == "random":
                        picks = np.random.default_rng(seed).choice(len(points), number, replace=False)
                    else:
                        picks = pick(method, points, number, seed, points[:0])
                    distances = pair[0].distances(picks)
                    cells = [float(meter.cells(picks)) for meter in pair]
                    rows.append([*cells, distances.mean(), np.quantile(distances, 0.99), distances.max()])
                report(method, number, rows)


if __name__ == "__main__":
    main()
