"""The report of an isotherm by UFF alone."""

from __future__ import annotations

import pytest
from aiida import orm

from aiida_mofmace.report.collect import collect
from aiida_mofmace.report.html import render
from aiida_mofmace.report.summary import summary

from .fake_run import UFF, FakeRun


@pytest.mark.usefixtures("aiida_profile")
def test_uff_alone_is_not_taken_for_the_trained_potential() -> None:
    made = FakeRun()
    chain = made.process("UffIsothermWorkChain", None, "UFF isotherm", {"structure": made.structure})
    made.give(chain, isotherm=orm.Dict({"temperature_K": 303.0, "gas": "CO2", "points": UFF}))
    data = collect(chain)
    assert data["isotherm"] == {}
    assert [point["pressure_Pa"] for point in data["uff_isotherm"]["points"]] == [2.0e3, 1.0e5]
    assert render(data).count("UFF, rigid framework, 303 K") == 2
    text = summary(chain)
    assert "4.10 ± 0.07 mol/kg" in text
    assert "never started" not in text
    assert "Labels" not in text


@pytest.mark.usefixtures("aiida_profile")
def test_uff_alone_that_failed() -> None:
    made = FakeRun()
    chain = made.process("UffIsothermWorkChain", None, "UFF isotherm", {"structure": made.structure})
    assert "There is no isotherm." in summary(chain)
