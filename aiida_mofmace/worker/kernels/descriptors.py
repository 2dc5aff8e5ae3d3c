"""Smooth overlap of atomic positions: one averaged vector a frame, and the check that its atoms are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from ..errors import WorkerError
from .frames import Frames

__all__ = ["Environments", "SoapSettings", "average_soap", "close_contacts"]

Environments = Literal["all", "framework"]

_CHUNK = 64


@dataclass(frozen=True)
class SoapSettings:
    """Settings of the SOAP descriptor (Bartók et al., Phys. Rev. B 87, 184115, 2013) as DScribe names them.

    :param r_cut: radius of the environments in Å
    :param n_max: number of radial basis functions
    :param l_max: highest degree of the spherical harmonics
    :param sigma: width of the Gaussian on each atom in Å
    :param average: "inner" averages the expansion coefficients over the centres, "outer" the power spectra
    """

    r_cut: float
    n_max: int
    l_max: int
    sigma: float = 1.0
    average: str = "inner"

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> SoapSettings:
        """Read the settings of a job.

        :raises WorkerError: of kind bad_input if a setting is missing, unknown or out of range
        """
        known = {field.name for field in fields(cls)}
        unknown, missing = set(parameters) - known, {"r_cut", "n_max", "l_max"} - set(parameters)
        if unknown or missing:
            raise WorkerError("bad_input", f"soap settings: unknown {sorted(unknown)}, missing {sorted(missing)}")
        settings = cls(**dict(parameters))
        if settings.r_cut <= 1.0 or settings.n_max < 1 or settings.l_max < 0 or settings.sigma <= 0.0:
            raise WorkerError("bad_input", f"soap settings out of range: {settings}; DScribe wants r_cut above 1 Å")
        if settings.average not in {"inner", "outer"}:
            raise WorkerError("bad_input", f"soap average is {settings.average!r}, give 'inner' or 'outer'")
        return settings


def _centres(frames: Frames, index: int, environments: Environments) -> list[int]:
    """Atoms whose environments are averaged: every atom, or the framework, which sees the gas as neighbours only."""
    n_atoms = int(frames.offsets[index + 1] - frames.offsets[index])
    n_centres = n_atoms if environments == "all" else int(frames.framework_atoms[index])
    if not 0 < n_centres <= n_atoms:
        raise WorkerError("bad_input", f"frame {index} has {n_atoms} atoms and {n_centres} of its framework")
    return list(range(n_centres))


def _chunks(length: int) -> Iterator[range]:
    for start in range(0, length, _CHUNK):
        yield range(start, min(start + _CHUNK, length))


def average_soap(
    frames: Frames,
    settings: SoapSettings,
    species: list[int],
    environments: Environments = "all",
    on_chunk: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Describe every frame by the average of its atomic environments.

    Only one chunk of frames exists in double precision at a time; what is kept is single precision.

    :param species: atomic numbers that span the descriptor; must cover all frames that are to be compared
    :param environments: average over all atoms or over the framework's
    :param on_chunk: called with the number of finished frames after each chunk; may raise to stop
    :return: descriptors, shape (n_frames, n_features)
    """
    from dscribe.descriptors import SOAP

    soap = SOAP(
        species=species,
        periodic=True,
        r_cut=settings.r_cut,
        n_max=settings.n_max,
        l_max=settings.l_max,
        sigma=settings.sigma,
        average=settings.average,
    )
    features = np.empty((len(frames), soap.get_number_of_features()), dtype=np.float32)
    for chunk in _chunks(len(frames)):
        for index in chunk:
            features[index] = soap.create(frames.atoms(index), centers=_centres(frames, index, environments))
        if on_chunk is not None:
            on_chunk(chunk.stop)
    return features


def close_contacts(frames: Frames, minimum_distance: float) -> NDArray[np.bool_]:
    """Frames with two atoms (periodic images included) nearer than a distance.

    :param minimum_distance: in Å; 0 accepts everything
    :return: shape (n_frames,)
    """
    if minimum_distance <= 0.0:
        return np.zeros(len(frames), dtype=np.bool_)
    contacts = (len(neighbor_list("i", frames.atoms(index), minimum_distance)) > 0 for index in range(len(frames)))
    return np.fromiter(contacts, dtype=np.bool_, count=len(frames))
