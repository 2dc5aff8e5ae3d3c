"""What keeps a run going while nobody looks at it; the real daemon with killed workers is test_label_daemon.py."""

from __future__ import annotations

import pytest

from aiida_mofmace.report import guard


@pytest.mark.parametrize(("first", "second", "expected"), [(0, 1, 0), (1, 0, 0), (1, 1, 1)])
def test_a_worker_must_be_missing_twice(
    monkeypatch: pytest.MonkeyPatch, first: int, second: int, expected: int
) -> None:
    """One that is just starting or has just ended is no dead one: the broker's account is some seconds old."""
    waited: list[float] = []
    monkeypatch.setattr(guard, "dead_workers", lambda: first)
    monkeypatch.setattr(guard, "release_dead_workers", lambda: second)
    assert guard.look(waited.append) == expected
    assert all(seconds > 5.0 for seconds in waited)
