"""Fixtures that every test of the worker may ask for."""

from .engine_fixtures import carbon_dioxide, framework, tiny_model

__all__ = ["carbon_dioxide", "framework", "tiny_model"]
