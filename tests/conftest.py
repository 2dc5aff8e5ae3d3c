"""Fixtures for all tests."""

pytest_plugins = ["aiida.tools.pytest_fixtures"]
