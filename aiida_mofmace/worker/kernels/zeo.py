"""Pore volumes by Zeo++ (Willems et al., Microporous Mesoporous Mater. 149, 134 (2012)), in a process of its own.

Zeo++ is compiled code that has ended whole processes by a segmentation fault; here that costs one more try, and not the
process that asks: ``python -m aiida_mofmace.worker.kernels.zeo FRAMEWORK.cif RADIUS SAMPLES RESULT.json``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from ase.io import write

__all__ = ["PoreVolumes", "pore_volumes"]

_FIGURES = re.compile(r"(\w+_Volume_fraction|\w+_cm\^3/g|Density): ([-+.\deE]+)")
_TRIES = 3
_LIMIT = 3600.0  # s


@dataclass(frozen=True)
class PoreVolumes:
    """What the centre of a probe can reach.

    :param figures: Zeo++'s figures by name, such as ``AV_Volume_fraction`` and ``AV_cm^3/g``
    :param radii: radius of each element in Å that Zeo++ used
    """

    figures: dict[str, float]
    radii: dict[str, float]


def pore_volumes(atoms: Atoms, radius: float, samples: int) -> PoreVolumes:
    """Return the accessible volume and that of closed pockets.

    :param atoms: periodic framework
    :param radius: of the probe in Å
    :param samples: random points for each atom
    :raises RuntimeError: if Zeo++ fails every time, with the end of its output
    """
    with tempfile.TemporaryDirectory() as folder:
        framework, result = Path(folder) / "framework.cif", Path(folder) / "result.json"
        write(framework, atoms)
        command = [sys.executable, "-m", __name__, str(framework), str(radius), str(samples), str(result)]
        for _ in range(_TRIES):
            ended = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False)
            if ended.returncode == 0:
                return PoreVolumes(**json.loads(result.read_text()))
    raise RuntimeError(f"Zeo++ failed {_TRIES} times with {ended.returncode}: {ended.stderr[-500:].strip()}")


def main(framework: str, radius: str, samples: str, result: str) -> None:
    """Run Zeo++ in this process and write what it found."""
    from pyzeo import AtomNetwork, volume

    network = AtomNetwork.read_from_CIF(framework, True)
    report = volume(network, float(radius), float(radius), int(samples)).decode()
    figures = {name: float(value) for name, value in _FIGURES.findall(report)}
    radii = {atom.type: atom.radius for atom in network.atoms}
    Path(result).write_text(json.dumps({"figures": figures, "radii": radii}))


if __name__ == "__main__":
    main(*sys.argv[1:])
