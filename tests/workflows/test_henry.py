"""Henry coefficients beside an isotherm: what is submitted, what is handed out, what is said when there is none."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm
from ase import units

from aiida_mofmace.calculations.widom import WidomCalculation
from aiida_mofmace.worker.programs.widom import WidomParameters
from aiida_mofmace.workflows.isotherm import MDGCMCIsothermWorkChain

from .isotherm_fixtures import ISOTHERM, run_heat, run_points
from .steps import finished, mil_120, process_of

WIDOM = {
    "henry": 2e-4,
    "henry_error": 3e-5,
    "henry_molecules_per_pascal": 1e-4,
    "henry_molecules_per_pascal_error": 1.5e-5,
    "heat": 0.4,
    "heat_error": 0.05,
    "effective_samples": 60.0,
    "too_short": False,
    "insertions": {"attempted": 900},
    "model_holes": 0,
    "steps_done": 800,
}


def start(codes: dict[str, Any], gas: Any = "CO2", **overrides: Any) -> Any:
    process = process_of(
        MDGCMCIsothermWorkChain.get_builder_from_protocol(
            codes, mil_120(), gas, overrides={"isotherm": {**ISOTHERM, "pressures": [1e4, 1e5]}, **overrides}, seed=2
        )
    )
    process.setup()
    return process


@pytest.fixture
def chain(codes: dict[str, Any]) -> Any:
    process = start(codes)
    process.close_window()
    return process


def widom(exit_status: int = 0, **values: Any) -> orm.ProcessNode:
    outputs = {"results": orm.Dict(WIDOM | values)} if exit_status == 0 else {}
    return finished(WidomCalculation, outputs, exit_status, "it blew up" if exit_status else "")


def test_it_is_that_of_the_isotherm(codes: dict[str, Any]) -> None:
    """Same temperature, same rules of insertion, framework held where it is held there."""
    process = start(codes, gcmc={"framework_flexible": False})
    assert process.ctx.window["queue"][-1] == "henry"
    process.submit_run("henry")
    process_class, inputs = process.submitted[-1]
    assert process_class is WidomCalculation
    assert process_class.spec().inputs.validate(inputs) is None
    parameters = WidomParameters.from_dict({**inputs["parameters"].get_dict(), "gas": inputs["gas"].get_dict()})
    assert (parameters.temperature, parameters.minimum_distance, parameters.explosion_distance) == (303.0, 1.8, 0.6)
    assert (parameters.framework_flexible, parameters.gas_flexible) == (False, True)
    assert "checkpoint" not in inputs


def test_none_where_none_is_wanted(codes: dict[str, Any]) -> None:
    process = start(codes, henry_coefficient={"insertions": 0})
    assert "henry" not in process.ctx.window["queue"]
    run_heat(process)
    assert run_points(process, {"loading": 1.0}, {"loading": 2.0}) is None
    assert "henry_coefficient" not in process.outputs


def test_value_error_and_units(chain: Any) -> None:
    """Beside the slope of the lowest point, in the same unit."""
    chain.on_run_finished("henry", widom())
    run_heat(chain)
    assert run_points(chain, {"loading": 1.0}, {"loading": 2.0}) is None
    henry = chain.outputs["henry_coefficient"].get_dict()
    row = henry["gases"]["CO2"]
    assert henry["temperature_K"] == 303.0
    assert row["converged"]
    assert (row["value_mol_per_kg_Pa"], row["error_mol_per_kg_Pa"]) == (2e-4, 3e-5)
    assert (row["value_molecules_per_cell_Pa"], row["error_molecules_per_cell_Pa"]) == (1e-4, 1.5e-5)
    assert row["isosteric_heat_kJ_per_mol"] == pytest.approx(0.4 * units.mol / units.kJ)
    assert row["isosteric_heat_error_kJ_per_mol"] == pytest.approx(0.05 * units.mol / units.kJ)
    slope = chain.outputs["isotherm"]["low_pressure_slope"]["CO2"]
    assert (slope["pressure_Pa"], slope["converged"]) == (1e4, True)


@pytest.mark.parametrize(
    ("node", "words"), [({"exit_status": 306}, "it blew up"), ({"henry": None}, "henry too few insertions")]
)
def test_an_isotherm_without_it_says_so(chain: Any, node: dict[str, Any], words: str) -> None:
    chain.on_run_finished("henry", widom(**node))
    run_heat(chain)
    code = run_points(chain, {"loading": 1.0}, {"loading": 2.0})
    assert code.status == 704
    assert words in code.message
    assert "henry_coefficient" not in chain.outputs
    assert "isotherm" in chain.outputs


@pytest.mark.parametrize(
    ("rough", "error"), [({"henry_error": 7e-5}, "7e-05"), ({"too_short": True, "effective_samples": 3.0}, "3e-05")]
)
def test_a_rough_one_is_handed_out_and_marked(chain: Any, rough: dict[str, Any], error: str) -> None:
    """An error above 0.3 of the value, the target of `fast`, or one that a few insertions make."""
    chain.on_run_finished("henry", widom(**rough))
    run_heat(chain)
    code = run_points(chain, {"loading": 1.0}, {"loading": 2.0})
    assert code.status == 704
    assert f"CO2 0.0002 ± {error} mol/(kg Pa) is not converged" in code.message
    assert not chain.outputs["henry_coefficient"]["gases"]["CO2"]["converged"]


def test_one_that_was_stopped_goes_on(chain: Any) -> None:
    checkpoint = orm.SinglefileData.from_string("state", "checkpoint.npz")
    outputs = {"results": orm.Dict(WIDOM | {"henry": None}), "checkpoint": checkpoint}
    chain.on_run_finished("henry", finished(WidomCalculation, outputs, 400, "stopped"))
    assert chain.ctx.window["queue"] == ["henry_part_01"]
    chain.submit_run("henry_part_01")
    process_class, inputs = chain.submitted[-1]
    assert process_class is WidomCalculation
    assert inputs["checkpoint"].uuid == checkpoint.uuid


def test_each_component_of_a_mixture_has_its_own(codes: dict[str, Any]) -> None:
    process = start(codes, {"CO2": 0.9, "H2O": 0.1})
    assert process.ctx.window["queue"][-2:] == ["henry_00", "henry_01"]
    process.close_window()
    names = []
    for key in ("henry_00", "henry_01"):
        process.submit_run(key)
        process_class, inputs = process.submitted[-1]
        assert process_class.spec().inputs.validate(inputs) is None
        names.append(inputs["gas"]["name"])
    assert names == ["CO2", "H2O"]
    process.on_run_finished("henry_00", widom())
    process.on_run_finished("henry_01", widom(306))
    process.inspect_heat()
    process.inspect_henry()
    assert list(process.outputs["henry_coefficient"]["gases"]) == ["CO2"]
    assert "henry_01" in process.ctx.henry_failure
