"""What other descriptors of a frame would cost than the averaged SOAP of DScribe: 160 atoms, one core, CPU time.

python benchmarks/descriptor_libraries.py

featomic is measured where it is installed (``pip install featomic``); with the same cut-off, width, radial and angular
degrees. The invariants of a MACE model are what a GPU could compute.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
REPOSITORY = Path(__file__).parents[1]
N_FRAMES = 20
#: Of the protocol paper.
SETTINGS = {"r_cut": 6.0, "n_max": 9, "l_max": 3, "sigma": 0.5}


def frames() -> list[Any]:
    import numpy as np
    from ase.io import read

    framework = read(REPOSITORY / "examples" / "MIL-120_primitive_40atoms.cif").repeat((2, 2, 1))
    rng = np.random.default_rng(0)
    images = [framework.copy() for _ in range(N_FRAMES)]
    for image in images:
        image.positions += rng.normal(scale=0.02, size=image.positions.shape)
    return images


def report(name: str, describe: Callable[[Any], Any]) -> None:
    images = frames()
    describe(images[0])
    started = time.process_time()
    for image in images:
        describe(image)
    print(f"{name:58s} {1000 * (time.process_time() - started) / N_FRAMES:7.1f} ms a frame", flush=True)


def with_dscribe() -> None:
    from dscribe import descriptors

    for average, what in (("inner", "one vector, averaged inside"), ("off", "a vector for each atom")):
        for sigma in (SETTINGS["sigma"], 1.0):
            settings = SETTINGS | {"sigma": sigma}
            soap = descriptors.SOAP(species=[1, 6, 8, 13], periodic=True, average=average, **settings)
            report(f"DScribe, {what}, sigma {sigma} Å", soap.create)


def with_featomic() -> None:
    try:
        from featomic import SoapPowerSpectrum, SphericalExpansion
    except ImportError:
        print("featomic is not installed")
        return
    settings = {
        "cutoff": {"radius": SETTINGS["r_cut"], "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
        "density": {"type": "Gaussian", "width": SETTINGS["sigma"]},
        "basis": {
            "type": "TensorProduct",
            "max_angular": SETTINGS["l_max"],
            "radial": {"type": "Gto", "max_radial": SETTINGS["n_max"] - 1},
        },
    }
    report("featomic, expansion alone, a tensor for each atom", SphericalExpansion(**settings).compute)
    report("featomic, a vector for each atom", SoapPowerSpectrum(**settings).compute)


def with_mace() -> None:
    try:
        import torch
        from mace.calculators import MACECalculator
    except ImportError:
        print("MACE is not installed")
        return
    torch.set_num_threads(1)
    model = str(REPOSITORY / "aiida_mofmace" / "starter" / "starter.model")
    calculator = MACECalculator(model, device="cpu", default_dtype="float32")
    report("MACE, invariants of the starter model for each atom", calculator.get_descriptors)


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, one used")
    for measure in (with_dscribe, with_featomic, with_mace):
        measure()


if __name__ == "__main__":
    main()
