"""Read what a MACE model file says about itself without running any of its code.

A MACE model is saved with ``torch.save``: a zip archive that holds a pickle and the tensors' raw bytes. Loading such a
pickle runs whatever it names. Here every name in the pickle becomes an inert stand-in, nothing is imported, and the few
tensors that matter are read from the archive with numpy.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

__all__ = ["ModelMetadata", "read_model_metadata"]

_STORAGE_TYPES = {
    "BFloat16Storage": ("bfloat16", "V2"),
    "BoolStorage": ("bool", "?"),
    "DoubleStorage": ("float64", "f8"),
    "FloatStorage": ("float32", "f4"),
    "HalfStorage": ("float16", "f2"),
    "IntStorage": ("int32", "i4"),
    "LongStorage": ("int64", "i8"),
}
_NOT_A_MODEL = (
    "{path} is not a MACE model: {reason}. Give a model file as written by mace_run_train or torch.save(model)."
)


@dataclass(frozen=True)
class ModelMetadata:
    """What a model file says about itself.

    :param sha256: digest of the file, hexadecimal
    :param elements: symbols of the elements the model knows, in order of atomic number
    :param r_max: cut-off radius in Å
    :param dtype: type of the weights, "float32" or "float64"
    :param heads: names of the read-out heads, in the model's order
    :param atomic_energies: energy of each isolated atom in eV, by head and symbol
    :param n_parameters: number of trainable weights
    """

    sha256: str
    elements: list[str]
    r_max: float
    dtype: str
    heads: list[str]
    atomic_energies: dict[str, dict[str, float]]
    n_parameters: int


class _Inert:
    """Stand-in for whatever a pickle names: it takes everything and does nothing."""

    name = ""

    def __new__(cls, *arguments: Any, **_options: Any) -> _Inert:
        instance = super().__new__(cls)
        instance.__dict__["arguments"] = arguments
        return instance

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(key): value for key, value in state.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take an element of a pickled list subclass and forget it."""

    def extend(self, values: Any) -> None:
        """Take the elements of a pickled list subclass and forget them."""


class _Mapping(dict[Any, Any]):
    """Stand-in for ``collections.OrderedDict``."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Collection(set[Any]):
    """Stand-in for ``set``."""

    def __setstate__(self, state: Any) -> None:
        pass


class _InertUnpickler(pickle.Unpickler):
    """An unpickler that imports nothing and calls nothing but the stand-ins above."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._names: dict[str, type] = {
            "collections.OrderedDict": _Mapping,
            "__builtin__.set": _Collection,
            "builtins.set": _Collection,
        }

    def find_class(self, module: str, name: str) -> type:
        """Return a stand-in for a name, always the same one."""
        full = f"{module}.{name}"
        if full not in self._names:
            self._names[full] = type(name.rpartition(".")[2] or "Inert", (_Inert,), {"name": full})
        return self._names[full]

    def persistent_load(self, pid: Any) -> Any:
        """Return the description of a tensor's storage; its bytes stay in the archive."""
        return tuple(pid) if isinstance(pid, (tuple, list)) else (pid,)


class _Archive:
    """The zip archive of ``torch.save``."""

    def __init__(self, path: Path):
        self._zip = zipfile.ZipFile(path)
        members = [name for name in self._zip.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(members) != 1:
            raise ValueError("the archive holds no data.pkl")
        self._root = members[0].rpartition("/")[0]
        if f"{self._root}/constants.pkl" in self._zip.namelist():
            raise ValueError("it is compiled TorchScript, which cannot be fine-tuned")
        order = f"{self._root}/byteorder"
        self._order = ">" if order in self._zip.namelist() and self._zip.read(order).strip() == b"big" else "<"

    def unpickle(self) -> Any:
        """Return the pickled object, made of stand-ins."""
        return _InertUnpickler(io.BytesIO(self._zip.read(f"{self._root}/data.pkl"))).load()

    def array(self, tensor: Any) -> NDArray[Any]:
        """Return the values of one tensor.

        :raises ValueError: if the tensor's storage is missing, of an unknown type, or shorter than its shape says
        """
        storage, offset, shape, stride = _tensor_layout(tensor)
        kind = _STORAGE_TYPES[_storage_name(storage)][1]
        raw = np.frombuffer(self._zip.read(f"{self._root}/data/{storage[2]}"), dtype=self._order + kind)
        last = offset + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
        if min((0, offset, *stride)) < 0 or last >= len(raw):
            raise ValueError("a tensor reaches beyond its storage")
        indices = np.full(shape, offset, dtype=np.int64)
        for axis, step in enumerate(stride):
            indices += step * np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return np.asarray(raw[indices])

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


def _name(instance: Any) -> str:
    """Return the full name of the class or function a stand-in stands for; the plain type's name for anything else."""
    kind = type(instance)
    return kind.name if issubclass(kind, _Inert) else kind.__name__


def _tensor_layout(tensor: Any) -> tuple[tuple[Any, ...], int, tuple[int, ...], tuple[int, ...]]:
    """Return storage, offset, shape and strides of a pickled tensor or parameter."""
    while _name(tensor) == "torch._utils._rebuild_parameter":
        tensor = tensor.__dict__["arguments"][0]
    if not _name(tensor).startswith("torch._utils._rebuild_tensor"):
        raise ValueError("a tensor is missing")
    storage, offset, shape, stride = tensor.__dict__["arguments"][:4]
    return storage, int(offset), tuple(int(n) for n in shape), tuple(int(n) for n in stride)


def _storage_name(storage: tuple[Any, ...]) -> str:
    name = str(getattr(storage[1], "name", "")).rpartition(".")[2]
    if name not in _STORAGE_TYPES:
        raise ValueError(f"its tensors are of an unknown type, {name or storage[1]!r}")
    return name


def _entry(module: Any, group: str, name: str) -> Any:
    """Return a buffer or a sub-module of a pickled torch module; None where there is none."""
    entries = getattr(module, "__dict__", {}).get(group)
    return entries.get(name) if isinstance(entries, dict) else None


def _parameters(module: Any) -> dict[tuple[Any, ...], tuple[Any, tuple[int, ...]]]:
    """Return storage and shape of every parameter below a module, shared ones once."""
    found: dict[tuple[Any, ...], tuple[Any, tuple[int, ...]]] = {}
    waiting, seen = [module], set()
    while waiting:
        current = waiting.pop()
        state = getattr(current, "__dict__", {})
        if id(current) in seen:
            continue
        seen.add(id(current))
        for tensor in (state.get("_parameters") or {}).values():
            if tensor is not None:
                storage, offset, shape, stride = _tensor_layout(tensor)
                found[(storage[2], offset, shape, stride)] = (storage, shape)
        waiting.extend((state.get("_modules") or {}).values())
    return found


def _describe(archive: _Archive, sha256: str) -> ModelMetadata:
    model = archive.unpickle()
    if not _name(model).startswith("mace."):
        raise ValueError(f"it holds a {_name(model)}")
    numbers = archive.array(_entry(model, "_buffers", "atomic_numbers")).reshape(-1)
    energies_module = _entry(model, "_modules", "atomic_energies_fn")
    energies = np.atleast_2d(archive.array(_entry(energies_module, "_buffers", "atomic_energies")))
    heads = [str(head) for head in model.__dict__.get("heads") or ["Default"]]
    if energies.shape != (len(heads), len(numbers)):
        raise ValueError(
            f"{len(heads)} heads and {len(numbers)} elements, but atomic energies of shape {energies.shape}"
        )
    symbols = [chemical_symbols[int(number)] for number in numbers]
    order = np.argsort(numbers)
    parameters = _parameters(model)
    sizes = {_storage_name(storage): 0 for storage, _ in parameters.values()}
    for storage, shape in parameters.values():
        sizes[_storage_name(storage)] += int(np.prod(shape))
    return ModelMetadata(
        sha256=sha256,
        elements=[symbols[i] for i in order],
        r_max=float(archive.array(_entry(model, "_buffers", "r_max")).reshape(-1)[0]),
        dtype=_STORAGE_TYPES[max(sizes, key=lambda name: sizes[name])][0],
        heads=heads,
        atomic_energies={
            head: {symbols[i]: float(row[i]) for i in order} for head, row in zip(heads, energies, strict=True)
        },
        n_parameters=sum(sizes.values()),
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_model_metadata(path: str | Path) -> ModelMetadata:
    """Describe a MACE model file without running its code.

    :param path: file written by ``torch.save`` of a whole model
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if the file is no MACE model, with the reason
    """
    path = Path(path)
    sha256 = _sha256(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(_NOT_A_MODEL.format(path=path, reason="it is no zip archive of torch.save"))
    try:
        archive = _Archive(path)
        try:
            return _describe(archive, sha256)
        finally:
            archive.close()
    except ValueError as error:
        raise ValueError(_NOT_A_MODEL.format(path=path, reason=error)) from error
    except Exception as error:
        reason = f"its content cannot be read ({type(error).__name__}: {error})"
        raise ValueError(_NOT_A_MODEL.format(path=path, reason=reason)) from error
