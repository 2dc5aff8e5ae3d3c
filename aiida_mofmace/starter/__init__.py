"""The starter model and the data it was trained on: paths only, nothing is loaded."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent

STARTER_MODEL: Path = _FOLDER / "starter.model"
"""A small MACE potential for H, C, O and Al at GFN1-xTB level, as MACE saves it."""

STARTER_TRAIN: Path = _FOLDER / "starter_train.extxyz"
"""Its training set, which also serves as replay data."""

STARTER_VALID: Path = _FOLDER / "starter_valid.extxyz"
"""The frames held back from its training."""

STARTER_METADATA: Path = _FOLDER / "starter.json"
"""Settings, errors and checksum of the model."""
