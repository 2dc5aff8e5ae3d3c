"""Fixtures for the tests of work chains."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm


@pytest.fixture
def codes(aiida_profile: Any, worker_code: orm.InstalledCode, aiida_code_installed: Any) -> dict[str, Any]:
    """A real worker and a CP2K that is never run."""
    path = "/bin/true"
    cp2k = aiida_code_installed(label="no-cp2k", default_calc_job_plugin="cp2k", filepath_executable=path)
    return {"worker": worker_code, "cp2k": cp2k}
