"""A MACE model as a node."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import yaml
from aiida import orm
from aiida.common.exceptions import ValidationError

from aiida_mofmace.starter import STARTER_MODEL

from .model_file import read_model_metadata

__all__ = ["KINDS", "UNTRAINED", "MaceModelData"]

#: Kind of a model with random weights, which may be trained but not simulated with.
UNTRAINED = "untrained"
KINDS = ("foundation", "fine_tuned", UNTRAINED)
_FILENAME = "model.model"
_AS_FILE = "`--model FILE`, in Python MaceModelData.from_file(path)"
_FOUNDATION_MODELS = Path(__file__).parent / "foundation_models.yaml"


class MaceModelData(orm.SinglefileData):
    """A MACE model file with what it says about itself as attributes, which ``QueryBuilder`` can filter.

    The file is a pickle, and opening a pickle runs code: it is read with an inert reader here and opened by worker
    programs only.
    """

    @classmethod
    def from_file(
        cls, path: str | Path, kind: str = "foundation", name: str | None = None, mace_version: str | None = None
    ) -> MaceModelData:
        """Return a node for a model file.

        :param path: file of a whole model, as written by ``mace_run_train`` or ``torch.save(model)``
        :param kind: "foundation", "fine_tuned" or "untrained"
        :param name: what to call the model; the file's name if None
        :param mace_version: version of mace that wrote the file, if known
        :return: unstored node
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if the file is no MACE model or the kind is unknown
        """
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no model file {path}; give the path of a MACE model")
        metadata = read_model_metadata(path)
        node = cls(file=str(path.resolve()), filename=_FILENAME)
        node.base.attributes.set_many(
            asdict(metadata) | {"kind": kind, "name": name or path.stem, "mace_version": mace_version}
        )
        node.label = name or path.stem
        return node

    @classmethod
    def starter(cls) -> MaceModelData:
        """Return the small model that comes with the package, the stored node if there is one.

        :raises FileNotFoundError: if the package was built without it
        """
        return cls._stored_or_new(STARTER_MODEL, "mofmace-starter")

    @classmethod
    def foundation(cls, name: str) -> MaceModelData:
        """Return a foundation model by name, by mace's own download and cache; the stored node if there is one.

        :param name: e.g. "MACE-MP-0b2-medium"
        :raises ValueError: if the name is unknown or the file's sha256 differs from the published one
        :raises RuntimeError: if mace cannot be imported or cannot download the file
        """
        known = yaml.safe_load(_FOUNDATION_MODELS.read_text(encoding="utf-8"))
        if name not in known:
            raise ValueError(
                f"unknown foundation model {name!r}; known are {', '.join(known)}. Any other model can be given as a "
                f"file: {_AS_FILE}"
            )
        path = _download(name, known[name]["name_in_mace"])
        found = read_model_metadata(path).sha256
        if found != known[name]["sha256"]:
            raise ValueError(
                f"{path} has the sha256 {found}, but {known[name]['sha256']} is published for {name}. Delete the file "
                f"and try again; to use it all the same, give it as a file: {_AS_FILE}"
            )
        return cls._stored_or_new(path, name)

    @classmethod
    def _stored_or_new(cls, path: Path, name: str) -> MaceModelData:
        """Return the stored node of a foundation model's file, or a new unstored one."""
        node = cls.from_file(path, kind="foundation", name=name)
        query = orm.QueryBuilder().append(
            cls, filters={"attributes.sha256": node.sha256, "attributes.kind": "foundation", "attributes.name": name}
        )
        stored = query.first(flat=True)
        return cast(MaceModelData, stored) if stored is not None else node

    def _validate(self) -> bool:
        super()._validate()  # type: ignore[no-untyped-call]
        missing = [key for key in ("sha256", "elements", "r_max", "heads", "kind") if key not in self.base.attributes]
        if missing:
            raise ValidationError(f"{', '.join(missing)} not set: make the node with MaceModelData.from_file(path)")
        return True

    def _get(self, key: str) -> Any:
        return self.base.attributes.get(key)

    @property
    def sha256(self) -> str:
        """Digest of the file, hexadecimal."""
        return str(self._get("sha256"))

    @property
    def elements(self) -> list[str]:
        """Symbols of the elements the model knows, in order of atomic number."""
        return list(self._get("elements"))

    @property
    def r_max(self) -> float:
        """Cut-off radius in Å."""
        return float(self._get("r_max"))

    @property
    def dtype(self) -> str:
        """Type of the weights, "float32" or "float64"."""
        return str(self._get("dtype"))

    @property
    def heads(self) -> list[str]:
        """Names of the read-out heads, in the model's order."""
        return list(self._get("heads"))

    @property
    def atomic_energies(self) -> dict[str, dict[str, float]]:
        """Energy of each isolated atom in eV, by head and symbol."""
        return dict(self._get("atomic_energies"))

    @property
    def kind(self) -> str:
        """Either "foundation" or "fine_tuned"."""
        return str(self._get("kind"))

    @property
    def name(self) -> str:
        """What the model is called."""
        return str(self._get("name"))

    @property
    def mace_version(self) -> str | None:
        """Version of mace that wrote the file, None if unknown."""
        return cast("str | None", self._get("mace_version"))

    @property
    def n_parameters(self) -> int:
        """Number of trainable weights."""
        return int(self._get("n_parameters"))


def _download(name: str, name_in_mace: str) -> Path:
    """Let mace download a model in a process of its own and return the path of the file."""
    command = [sys.executable, "-m", "aiida_mofmace.data.download_foundation", name_in_mace]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(
            f"{name} could not be had: {reason}. Without a network, copy the model file here and give its path: "
            f"{_AS_FILE}"
        )
    return Path(done.stdout.strip().splitlines()[-1])
