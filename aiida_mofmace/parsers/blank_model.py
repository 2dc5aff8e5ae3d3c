"""From the files of an untrained model to a node."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from aiida_mofmace.data.model import UNTRAINED, MaceModelData

from .base import WorkerParser

__all__ = ["BlankModelParser"]


class BlankModelParser(WorkerParser):
    """Attach the model."""

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program."""
        if not finished:
            return
        version = json.loads(self.content("model.json"))["mace_version"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.model")
            path.write_bytes(self.content("model.model"))
            self.out("model", MaceModelData.from_file(path, kind=UNTRAINED, name="untrained", mace_version=version))
