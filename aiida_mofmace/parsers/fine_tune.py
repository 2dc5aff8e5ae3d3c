"""From the files of a fine-tuning to nodes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from aiida import orm

from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.worker.results import to_plain

from .base import WorkerParser

__all__ = ["FineTuneParser"]


class FineTuneParser(WorkerParser):
    """Attach the model and its history; the model says itself what it is, and must agree with the program."""

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program; a training that was stopped may have no model."""
        if finished or self.has("model.model"):
            self.out("model", self._model())
        if finished or self.has("history.json"):
            self.out("history", orm.List(to_plain(json.loads(self.content("history.json")))))
        self.out_arrays("test_predictions", "test_predictions.npz", required=False)
        self.out_file("checkpoint", "checkpoint.pt", required=False)
        if self.has("split.json"):
            results["split"] = json.loads(self.content("split.json"))

    def _model(self) -> MaceModelData:
        described = json.loads(self.content("model.json"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.model")
            path.write_bytes(self.content("model.model"))
            name = str(self.node.inputs.parameters.get_dict().get("name") or "fine-tuned")
            model = MaceModelData.from_file(
                path, kind="fine_tuned", name=name, mace_version=described.get("mace_version")
            )
        if described.get("sha256") not in (None, model.sha256):
            raise ValueError("model.model is not the file that model.json describes: the sha256 differs")
        return model
