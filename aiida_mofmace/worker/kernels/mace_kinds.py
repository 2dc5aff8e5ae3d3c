"""Which MACE models are taken apart: those whose layers are known."""

from __future__ import annotations

from typing import Any

__all__ = ["why_not"]

_MODELS = ("MACE", "ScaleShiftMACE")
_BLOCKS = (
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
)


def why_not(model: Any) -> str:
    """Say why a model is evaluated as a whole, and by its own layers alone; empty if it can be taken apart."""
    name = type(model).__name__
    if name not in _MODELS:
        return f"{name} is not one of {', '.join(_MODELS)}"
    if hasattr(model, "joint_embedding"):
        return "its atoms have features of the whole system"
    for block in model.interactions:
        if type(block).__name__ not in _BLOCKS:
            return f"its interaction {type(block).__name__} is not one of {', '.join(_BLOCKS)}"
        if getattr(block, "cueq_config", None) is not None or getattr(block, "oeq_config", None) is not None:
            return "its kernels are not those of e3nn"
    return ""
