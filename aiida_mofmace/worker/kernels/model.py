"""Energies and forces: the interface every simulation is written against, and MACE behind it."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple, Protocol

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ..errors import WorkerError
from .mace_kinds import why_not
from .neighbour_search import Pairs, neighbours, neighbours_of_batch

__all__ = [
    "Configuration",
    "Evaluation",
    "MaceEvaluator",
    "Potential",
    "choose_device",
    "default_dtype",
]

Array = NDArray[np.float64]
_DEFAULT_HEAD = "default"
_ATOMS_PER_BATCH = {"cpu": 512, "gpu": 8192}
#: What fused layers may differ by from the model's own, in units of the largest force or energy of the probe.
_FUSED_TOLERANCE = {"float32": 1e-4, "float64": 1e-7}


class Configuration(NamedTuple):
    """A periodic configuration; ASE's Atoms have the same three attributes and can stand in its place.

    :param numbers: atomic numbers, shape (n,)
    :param positions: Cartesian positions in Å, wrapped or not, shape (n, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    """

    numbers: NDArray[np.int64]
    positions: Array
    cell: Array


@dataclass(frozen=True)
class Evaluation:
    """What a potential says of one configuration.

    :param interaction_energy: potential energy without the energies of the isolated atoms in eV
    :param atomic_energy: sum of the energies of the isolated atoms (E0) in eV
    :param forces: in eV/Å, shape (n, 3); None if not asked for
    :param stress: in eV/Å³ with ASE's sign, shape (3, 3); None if not asked for
    """

    interaction_energy: float
    atomic_energy: float = 0.0
    forces: Array | None = None
    stress: Array | None = None

    @property
    def energy(self) -> float:
        """Total potential energy in eV."""
        return self.interaction_energy + self.atomic_energy


class Potential(Protocol):
    """Anything that gives energies and forces; its answer must depend on nothing but the configurations.

    ``r_max`` is the distance in Å beyond which two atoms are no neighbours. One whose ``keeps_last`` is true evaluates
    trial moves by what they change from the last configuration that it gave forces of.
    """

    r_max: float

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Evaluate configurations (:class:`Configuration` or ASE atoms), independent of each other."""
        ...


def choose_device(name: str) -> str:
    """Turn "auto" into "cuda" where there is such a device, else "cpu"."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise WorkerError("bad_input", f"device {name} was asked for, but this machine has none that torch can use")
    return name


class MaceEvaluator:
    """A MACE model as a :class:`Potential`.

    Atomic energies are taken out of the model and summed in float64 apart from it, and the atoms' interaction energies
    are summed in float64: in float32 a total energy is off by about 0.02 eV, an interaction energy by micro-eV.
    Neighbours are found anew for each call, so on a CPU equal configurations give equal bits whatever came before.

    The layers of most models are replaced by faster ones (:mod:`fused`), once they have given the same
    energy, forces and stress of a probe as the model's own; ``kernels`` says which there are.

    :param path: model file as written by mace (a pickle: opening it runs code)
    :param device: "cpu", "cuda" or "auto"
    :param dtype: "float32" or "float64"
    :param head: head of a multihead model; None for the only one, or the one called Default
    :param atoms_per_batch: how many atoms to evaluate at once; None for a number that suits the device
    :param may_fuse: whether faster layers may take the place of the model's own
    :raises WorkerError: kind no_model if the file cannot be read, bad_input for an unknown head or dtype
    """

    def __init__(
        self,
        path: str | PathLike[str],
        device: str = "cpu",
        dtype: str = "float32",
        head: str | None = None,
        *,
        atoms_per_batch: int | None = None,
        may_fuse: bool = True,
    ):
        import mace  # noqa: F401  (before e3nn: it prepares torch for loading constants)
        import torch

        if dtype not in _FUSED_TOLERANCE:
            raise WorkerError("bad_input", f"dtype must be float32 or float64, got {dtype}")
        self.device = choose_device(device)
        self.dtype = getattr(torch, dtype)
        model = _load(path)
        self.heads: list[str] = [str(name) for name in getattr(model, "heads", None) or ["Default"]]
        self.head_index = _head_index(self.heads, head)
        self.r_max = float(model.r_max)
        self.numbers = np.array(model.atomic_numbers.tolist(), dtype=np.int64)
        table = model.atomic_energies_fn.atomic_energies
        self._atomic_energies = np.atleast_2d(table.detach().cpu().double().numpy())[self.head_index].copy()
        self._index = np.full(len(chemical_symbols), -1, dtype=np.int64)
        self._index[self.numbers] = np.arange(len(self.numbers))
        self._atoms_per_batch = atoms_per_batch or _ATOMS_PER_BATCH["cpu" if self.device == "cpu" else "gpu"]
        self._take(model)
        #: "fused" or "e3nn"
        self.kernels = "e3nn"
        if may_fuse and not why_not(model):
            self._fuse(path, _FUSED_TOLERANCE[dtype])
        self._probe()

    def _take(self, model: Any) -> None:
        """Prepare a model for evaluation."""
        model.atomic_energies_fn.atomic_energies.zero_()
        self.model = model.to(device=self.device, dtype=self.dtype).eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    def _fuse(self, path: str | PathLike[str], tolerance: float) -> None:
        """Have the model evaluated by faster layers; go back to its own where those give something else."""
        expected = self._probe()
        try:
            from .fused import fuse

            fuse(self.model.cpu(), self.dtype)
            self._take(self.model)
            found = self._probe()
        except Exception as error:  # whatever is unknown about a model, its own layers know it
            wrong = f"cannot be made: {type(error).__name__}: {error}"
        else:
            pairs = zip(found, expected, strict=True)
            # numpy's max, unlike Python's, is not a number as soon as one of them is not.
            off = float(np.max([np.abs(mine - own).max() / max(1.0, np.abs(own).max()) for mine, own in pairs]))
            wrong = "" if off <= tolerance else f"are off by {off:.1e}"
        self.kernels = "e3nn" if wrong else "fused"
        if wrong:
            warnings.warn(f"{path}: fused layers {wrong}; the model's own are used", stacklevel=3)
            self._take(_load(path))

    def _probe(self) -> tuple[Array, Array, Array]:
        """Return energy, forces and stress of a cluster of all elements, or twelve of them.

        The first call of a process rounds otherwise than the later ones, and a restart would show it: so call once.
        """
        places = np.moveaxis(np.indices((3, 2, 2)), 0, 3).reshape(-1, 3)
        positions = 1.7 * places + np.random.default_rng(0).uniform(-0.25, 0.25, places.shape)
        numbers = np.resize(self.numbers[:: -(-len(self.numbers) // len(places))], len(places))
        cluster = Configuration(numbers, positions, (4.0 + 2.0 * self.r_max) * np.eye(3))
        found = self._evaluate_batch([cluster], forces=True, stress=True)[0]
        assert found.forces is not None and found.stress is not None
        self._evaluate_batch([cluster], forces=True, stress=False)
        return np.array(found.interaction_energy), found.forces, found.stress

    @property
    def elements(self) -> list[str]:
        """Chemical symbols the model knows, by ascending atomic number."""
        return [chemical_symbols[number] for number in sorted(self.numbers)]

    def require_elements(self, numbers: NDArray[np.int64]) -> None:
        """Refuse atoms the model was not trained on.

        :raises WorkerError: kind bad_input, naming the elements
        """
        unknown = sorted({int(number) for number in numbers[self._index[numbers] < 0]})
        if unknown:
            names = ", ".join(chemical_symbols[number] for number in unknown)
            raise WorkerError("bad_input", f"the model does not know {names}; it knows {', '.join(self.elements)}")

    def evaluate(self, configurations: Sequence[Any], forces: bool = True, stress: bool = False) -> list[Evaluation]:
        """Evaluate configurations, as many at once as fit into a batch.

        What has positions that are no numbers has an energy and forces that are none.

        :param configurations: :class:`Configuration` or ASE atoms; taken as periodic in all directions
        :param forces: also forces; without them a call costs about a third
        :param stress: also stresses
        :raises WorkerError: kind bad_input for elements the model does not know; out_of_memory, if a GPU has not enough
            for one configuration
        """
        answers: list[Evaluation] = []
        batch: list[Configuration] = []
        atoms = 0
        given = [_plain(each) for each in configurations]
        are_numbers = [bool(np.isfinite(each.positions).all() and np.isfinite(each.cell).all()) for each in given]
        for each in itertools.compress(given, are_numbers):
            if batch and atoms + len(each.numbers) > self._atoms_per_batch:
                answers += self._evaluate_fitting(batch, forces, stress)
                batch, atoms = [], 0
            batch.append(each)
            atoms += len(each.numbers)
        found = iter(answers + (self._evaluate_fitting(batch, forces, stress) if batch else []))
        pairs = zip(given, are_numbers, strict=True)
        return [next(found) if is_number else self._no_number(each, forces, stress) for each, is_number in pairs]

    def _no_number(self, each: Configuration, forces: bool, stress: bool) -> Evaluation:
        """Say of positions that are no numbers what a guard looks for; a search for neighbours would break off."""
        return Evaluation(
            np.nan,
            self.atomic_energy(self.species(each.numbers)),
            np.full(each.positions.shape, np.nan) if forces else None,
            np.full((3, 3), np.nan) if stress else None,
        )

    def _evaluate_fitting(self, batch: list[Configuration], forces: bool, stress: bool) -> list[Evaluation]:
        """Evaluate a batch; in halves, from now on, where a GPU has not the memory for all of it at once."""
        import torch

        try:
            return self._evaluate_batch(batch, forces, stress)
        except torch.cuda.OutOfMemoryError as error:
            said = str(error)
        # Behind the clause, and not from the error: it keeps all tensors of the call alive.
        atoms = sum(len(each.numbers) for each in batch)
        if len(batch) == 1:
            message = f"{self.device} has not the memory for one system of {atoms} atoms: {said}"
            raise WorkerError("out_of_memory", message)
        self._atoms_per_batch = min(self._atoms_per_batch, -(-atoms // 2))
        half = len(batch) // 2
        parts = (batch[:half], batch[half:])
        return [answer for part in parts for answer in self._evaluate_fitting(part, forces, stress)]

    def _evaluate_batch(self, batch: list[Configuration], forces: bool, stress: bool) -> list[Evaluation]:
        import torch

        species = [self.species(each.numbers) for each in batch]
        graph = self._graph(batch, np.concatenate(species))
        with torch.set_grad_enabled(forces or stress), default_dtype(self.dtype):
            output = self.model(graph, compute_force=forces or stress, compute_stress=stress)
        ends = np.cumsum([len(each.numbers) for each in batch])[:-1]
        node_energies = output["node_energy"].detach().double().cpu().numpy()
        energies = [float(part.sum()) for part in np.split(node_energies, ends)]
        atomic = [self.atomic_energy(each) for each in species]
        all_forces: list[Array] | list[None] = [None] * len(batch)
        all_stresses: list[Array] | list[None] = [None] * len(batch)
        if forces:
            all_forces = np.split(output["forces"].detach().double().cpu().numpy(), ends)
        if stress:
            all_stresses = list(output["stress"].detach().double().cpu().numpy())
        rows = zip(energies, atomic, all_forces, all_stresses, strict=True)
        return [Evaluation(energy, e0, force, tensor) for energy, e0, force, tensor in rows]

    def species(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the model's index of each atomic number.

        :raises WorkerError: kind bad_input for elements the model does not know
        """
        species = self._index[numbers]
        if np.any(species < 0):
            self.require_elements(numbers)
        return species

    def atomic_energy(self, species: NDArray[np.int64]) -> float:
        """Return the sum of the energies of the isolated atoms in eV."""
        return float(self._atomic_energies[species].sum())

    def _graph(self, batch: list[Configuration], species: NDArray[np.int64]) -> dict[str, Any]:
        """Nodes and edges of all configurations in the form MACE takes."""
        import torch

        counts = np.array([len(each.numbers) for each in batch])
        offsets = np.concatenate([[0], np.cumsum(counts)])
        of_atoms = np.repeat(np.arange(len(batch)), counts)
        pairs = self._pairs(batch, offsets)
        arrays = {
            "cell": np.concatenate([each.cell for each in batch]),
            "batch": of_atoms,
            "ptr": offsets,
            "head": np.full(len(batch), self.head_index),
        }
        graph = {name: torch.as_tensor(array, device=self.device) for name, array in arrays.items()}
        one_hot = torch.eye(len(self.numbers), dtype=self.dtype, device=self.device)
        graph["node_attrs"] = one_hot[torch.as_tensor(species, device=self.device)]
        cells = graph["cell"].view(-1, 3, 3)[graph["batch"][pairs.edges[0]]]
        graph |= pairs._asdict() | {"shifts": torch.bmm(pairs.unit_shifts[:, None], cells)[:, 0]}
        graph["edge_index"] = graph.pop("edges")
        return {name: each.to(self.dtype) if each.is_floating_point() else each for name, each in graph.items()}

    def _pairs(self, batch: list[Configuration], offsets: NDArray[np.int64]) -> Pairs:
        """Return the pairs of all configurations as tensors on the device."""
        import torch

        if self.device != "cpu":
            positions, cells = [each.positions for each in batch], [each.cell for each in batch]
            return neighbours_of_batch(positions, cells, self.r_max, self.device)
        parts = [neighbours(each.positions, each.cell, self.r_max) for each in batch]
        edges = [part.edges + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
        joined = (np.concatenate(each) for each in ([p.unit_shifts for p in parts], [p.positions for p in parts]))
        return Pairs(*map(torch.from_numpy, (np.concatenate(edges, axis=1), *joined)))


def _plain(each: Any) -> Configuration:
    """Return a configuration with arrays of one kind each."""
    positions, cell = (np.asarray(array, dtype=np.float64) for array in (each.positions, each.cell))
    return Configuration(np.asarray(each.numbers, dtype=np.int64), positions, cell)


def _load(path: str | PathLike[str]) -> Any:
    """Unpickle a model; its warnings on how it was saved are of no use here."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise WorkerError("no_model", f"{path} cannot be opened as a MACE model: {error}") from error
    missing = [name for name in ("r_max", "atomic_numbers", "atomic_energies_fn") if not hasattr(model, name)]
    if missing:
        raise WorkerError("no_model", f"{path} is no MACE model: it has no {', '.join(missing)}")
    return model


def _head_index(heads: list[str], head: str | None) -> int:
    if head in heads:
        return heads.index(str(head))
    lowered = [name.lower() for name in heads]
    if head is None and len(heads) == 1:
        return 0
    if head is None and _DEFAULT_HEAD in lowered:
        return lowered.index(_DEFAULT_HEAD)
    asked = "a head must be chosen" if head is None else f"there is no head {head}"
    raise WorkerError("bad_input", f"{asked}: the model has {', '.join(heads)}")


@contextlib.contextmanager
def default_dtype(dtype: Any) -> Iterator[None]:
    """Have MACE make its own tensors in this dtype: its mask of heads takes the default of torch otherwise."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
