"""The isotherm: chunks until a point is good enough, and numbers that can be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import engine, orm
from ase import units

from aiida_mofmace.calculations.mace_md import MaceMdCalculation
from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation
from aiida_mofmace.calculations.md_gcmc_batch import MdGcmcBatchCalculation
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.workflows.adsorption import assemble_heat, hole_fraction, is_converged
from aiida_mofmace.workflows.isotherm import MDGCMCIsothermWorkChain

from ..worker.engine_fixtures import CO2, WATER, write_tiny_mace
from .isotherm_fixtures import ISOTHERM, NO_HENRY, batch, chunk, figures, md, run_heat, run_points
from .steps import finished, mil_120, process_of

MASS = 494.1  # amu, of the framework's atoms in the cell


@pytest.fixture
def chain(codes: dict[str, Any]) -> Any:
    builder = MDGCMCIsothermWorkChain.get_builder_from_protocol(
        codes, mil_120(), overrides={"isotherm": ISOTHERM, "henry_coefficient": NO_HENRY}, seed=2
    )
    process = process_of(builder)
    process.setup()
    return process


def test_points_first_then_the_runs_for_the_heat(chain: Any) -> None:
    assert chain.ctx.window["queue"] == [
        "pressure_00_chunk_00",
        "pressure_01_chunk_00",
        "heat_loaded",
        "heat_framework",
        "heat_gas",
    ]
    chain.ctx.window["size"] = 9
    chain.run_chunks()
    for process_class, inputs in chain.submitted:
        assert process_class.spec().inputs.validate(inputs) is None
    submitted = {inputs["metadata"]["call_link_label"]: inputs for _, inputs in chain.submitted}
    parameters = submitted["pressure_01_chunk_00"]["parameters"].get_dict()
    assert (parameters["pressure"], parameters["steps"], parameters["temperature"]) == (1e5, 100, 303.0)
    assert (parameters["minimum_distance"], parameters["explosion_distance"]) == (1.8, 0.6)
    assert "structure" not in submitted["heat_gas"]
    assert submitted["heat_gas"]["parameters"]["gas_phase_box"] == 15.0
    assert [submitted[key]["parameters"]["loading"] for key in ("heat_loaded", "heat_framework")] == [1, 0]


def test_peng_robinson_fugacity(codes: dict[str, Any]) -> None:
    section = {**ISOTHERM, "pressures": [1e4, 2e6], "equation_of_state": "peng_robinson"}
    process = process_of(
        MDGCMCIsothermWorkChain.get_builder_from_protocol(
            codes, mil_120(), overrides={"isotherm": section, "henry_coefficient": NO_HENRY}
        )
    )
    process.setup()
    fugacities = []
    for key in ("pressure_00_chunk_00", "pressure_01_chunk_00"):
        process.submit_run(key)
        fugacities.append(process.submitted[-1][1]["parameters"]["fugacity"])
    assert fugacities[0] == pytest.approx(1e4, rel=1e-3)
    assert fugacities[1] == pytest.approx(0.90 * 2e6, rel=0.02)


def test_the_slope_is_that_over_the_fugacity(codes: dict[str, Any]) -> None:
    """At 20 bar, where it is a tenth less than the pressure."""
    section = {**ISOTHERM, "pressures": [2e6], "equation_of_state": "peng_robinson"}
    process = process_of(
        MDGCMCIsothermWorkChain.get_builder_from_protocol(
            codes, mil_120(), overrides={"isotherm": section, "henry_coefficient": NO_HENRY}
        )
    )
    process.setup()
    run_heat(process)
    assert run_points(process, {"loading": 2.0}) is None
    slope = process.outputs["isotherm"]["low_pressure_slope"]["CO2"]
    assert slope["value_mol_per_kg_Pa"] == pytest.approx(2.0 / MASS * 1000 / (0.90 * 2e6), rel=0.02)
    assert slope["error_mol_per_kg_Pa"] == pytest.approx(0.01 / MASS * 1000 / (0.90 * 2e6), rel=0.02)


def test_a_mixture_has_a_fugacity_for_each_component(codes: dict[str, Any]) -> None:
    """Wet CO2: partial pressures, no heat by equation 2, and each component judged and reported by itself."""
    builder = MDGCMCIsothermWorkChain.get_builder_from_protocol(
        codes,
        mil_120(),
        {"CO2": 0.9, "H2O": 0.1},
        overrides={"isotherm": {**ISOTHERM, "pressures": [1e4]}, "henry_coefficient": NO_HENRY},
    )
    process = process_of(builder)
    process.setup()
    assert process.ctx.window["queue"] == ["pressure_00_chunk_00"]
    process.close_window()
    process.submit_run("pressure_00_chunk_00")
    process_class, inputs = process.submitted[-1]
    assert process_class.spec().inputs.validate(inputs) is None
    assert inputs["parameters"]["fugacity"] == pytest.approx({"CO2": 9e3, "H2O": 1e3})
    both = {"effective_samples": 9.0, "too_short": False}
    good = {"mean_loading": 1.5, "loading_error": 0.01, "isosteric_heat": 0.4, **both}
    loose = {"mean_loading": 0.5, "loading_error": 0.07, "isosteric_heat": 0.6, **both}
    process.on_run_finished("pressure_00_chunk_00", chunk(steps=200, components={"CO2": good, "H2O": loose}))
    assert process.ctx.window["queue"][-1] == "pressure_00_chunk_01", "water is not converged"
    settled = {"CO2": good, "H2O": {**loose, "loading_error": 0.01}}
    process.on_run_finished("pressure_00_chunk_01", chunk(steps=300, components=settled))
    process.inspect_heat()
    process.inspect_henry()
    assert process.inspect_points() is None
    assert "heat_of_adsorption" not in process.outputs
    point = process.outputs["isotherm"]["points"][0]
    assert point["components"]["H2O"]["loading_mol_per_kg"] == pytest.approx(0.5 / MASS * 1000, rel=1e-4)
    assert point["components"]["CO2"]["isosteric_heat_kJ_per_mol"] == pytest.approx(0.4 * units.mol / units.kJ)
    slope = process.outputs["isotherm"]["low_pressure_slope"]["H2O"]
    assert slope["value_mol_per_kg_Pa"] == pytest.approx(0.5 / MASS * 1000 / 1e3, rel=1e-4)


def test_chunks_go_on_until_the_error_is_small(chain: Any) -> None:
    chain.close_window()
    first = chunk(steps=100)
    chain.on_run_finished("pressure_00_chunk_00", first)
    assert chain.ctx.window["queue"] == ["pressure_00_chunk_01"], "fewer than min_steps"
    chain.submit_run("pressure_00_chunk_01")
    inputs = chain.submitted[-1][1]
    assert inputs["parameters"]["steps"] == 200
    assert inputs["checkpoint"].uuid == first.outputs.checkpoint.uuid
    chain.close_window()
    chain.on_run_finished("pressure_00_chunk_01", chunk(steps=200))
    assert chain.ctx.window["queue"] == []
    assert chain.ctx.runs["pressure_00"]["chunks"] == 2


def test_chunks_end_at_the_limit(chain: Any) -> None:
    chain.close_window()
    for number, steps in enumerate((100, 200, 300)):
        chain.on_run_finished(f"pressure_00_chunk_{number:02d}", chunk(steps=steps, error=1.0))
    assert chain.ctx.window["queue"] == ["pressure_00_chunk_01", "pressure_00_chunk_02"]


def holes(**met: int) -> dict[str, dict[str, int]]:
    """What became of 100 trials of each kind, so many of which met a hole of the model."""
    common = {"attempted": 100, "evaluated": 100, "accepted": 9}
    return {move: {**common, "holes": met.get(move, 0)} for move in ("insertion", "deletion")}


PART = {"loading_error": 0.01, "effective_samples": 9.0, "too_short": False}


def test_time_in_holes_is_that_of_all_molecules_looked_at() -> None:
    """Those that could not have been deleted for the minimum distance are molecules as well."""
    deletion = {"attempted": 130, "evaluated": 40, "overlap": 60, "holes": 10, "accepted": 5}
    assert hole_fraction({"acceptance": {"deletion": deletion}}) == pytest.approx(0.10)
    assert hole_fraction({"acceptance": {"deletion": {"attempted": 20, "evaluated": 0}}}) == 0.0


@pytest.mark.parametrize(
    ("changes", "converged"),
    [
        ({}, True),
        ({"error": 0.1}, False),  # 0.1 molecules of 494 amu cells are 0.2 mol/kg
        ({"error": None}, False),
        ({"effective_samples": 4.0}, False),
        ({"acceptance": {"insertion": {"accepted": 1}, "deletion": {"accepted": 2}}}, False),
        ({"steps": 100}, False),
        ({"acceptance": holes(deletion=1)}, True),
        ({"acceptance": holes(deletion=2)}, False),
        ({"acceptance": holes(insertion=90)}, True),  # refused, so that nothing came of them
        ({"components": {"CO2": PART, "H2O": PART}}, True),
        ({"components": {"CO2": PART, "H2O": {**PART, "effective_samples": 4.0}}}, False),
        ({"components": {"CO2": {**PART, "effective_samples": 4.0}, "H2O": PART}}, False),
    ],
)
def test_what_counts_as_converged(changes: dict[str, Any], converged: bool) -> None:
    assert is_converged(figures(**{"steps": 200, **changes}), MASS, ISOTHERM) is converged


def test_heat_runs_that_were_stopped_go_on(chain: Any) -> None:
    chain.close_window()
    checkpoint = orm.SinglefileData.from_string("state", "checkpoint.npz")
    stopped = finished(MaceMdCalculation, {"results": orm.Dict({}), "checkpoint": checkpoint}, 400, "stopped")
    chain.on_run_finished("heat_loaded", stopped)
    assert chain.ctx.window["queue"] == ["heat_loaded_part_01"]
    chain.submit_run("heat_loaded_part_01")
    inputs = chain.submitted[-1][1]
    assert inputs["checkpoint"].uuid == checkpoint.uuid
    assert inputs["parameters"]["loading"] == 1


def test_heat_by_hand(aiida_profile: Any) -> None:
    """Equation 2: (-104 + 100)/2 + 1.5 - kT at 300 K, errors in quadrature, in kJ/mol."""
    results = [
        orm.Dict({"mean_energy": e, "mean_energy_error": d, "too_short": False})
        for e, d in ((-104, 0.06), (-100, 0.08), (-1.5, 0.12))
    ]
    settings = orm.Dict({"temperature": 300.0, "n_molecules": 2})
    heat = assemble_heat(settings, *results)
    unit = units.mol / units.kJ
    assert heat["value_kJ_per_mol"] == pytest.approx((-2.0 + 1.5 - units.kB * 300.0) * unit)
    assert heat["error_kJ_per_mol"] == pytest.approx(0.13 * unit)
    assert heat["converged"]
    single = orm.Dict({"mean_energy": -1.5, "mean_energy_error": None, "too_short": True})
    unknown = assemble_heat(settings, results[0], results[1], single)
    assert unknown["error_kJ_per_mol"] is None
    assert not unknown["converged"]


def test_a_good_isotherm(chain: Any) -> None:
    run_heat(chain)
    assert run_points(chain, {"loading": 1.0}, {"loading": 2.0}) is None
    isotherm = chain.outputs["isotherm"].get_dict()
    assert isotherm["framework_mass_amu"] == pytest.approx(MASS, abs=0.01)
    assert isotherm["cell_volume_A3"] == pytest.approx(527.9, abs=0.1)
    low, high = isotherm["points"]
    assert (low["pressure_Pa"], high["pressure_Pa"], high["fugacity_Pa"]) == (1e4, 1e5, 1e5)
    assert high["loading_mol_per_kg"] == pytest.approx(2.0 / MASS * 1000, rel=1e-4)
    assert high["loading_mol_per_kg_error"] == pytest.approx(0.01 / MASS * 1000, rel=1e-4)
    assert high["loading_cm3_stp_per_gram"] == pytest.approx(2.0 / MASS * 22414, rel=1e-4)
    assert high["loading_cm3_stp_per_gram_error"] == pytest.approx(0.01 / MASS * 22414, rel=1e-4)
    assert low["isosteric_heat_kJ_per_mol"] == pytest.approx(0.5 * units.mol / units.kJ)
    assert low["converged"]
    slope = isotherm["low_pressure_slope"]["CO2"]
    assert slope["value_mol_per_kg_Pa"] == pytest.approx(1.0 / MASS * 1000 / 1e4, rel=1e-4)
    assert slope["error_mol_per_kg_Pa"] == pytest.approx(0.01 / MASS * 1000 / 1e4, rel=1e-4)
    assert sorted(chain.outputs["timeseries"]) == ["pressure_00", "pressure_01"]
    assert chain.outputs["heat_of_adsorption"]["energy_gas_eV"] == -0.5


def test_a_heat_that_is_not_to_be_relied_on_is_a_warning(chain: Any) -> None:
    """It is handed out and marked; a point that is not converged is named first."""
    run_heat(chain, heat_loaded=md(-11.0, too_short=True))
    code = run_points(chain, {"loading": 1.0}, {"loading": 2.0})
    assert (code.status, chain.outputs["heat_of_adsorption"]["converged"]) == (703, False)


def test_a_loading_that_changed_too_rarely_is_not_converged(chain: Any) -> None:
    """However small its error."""
    run_heat(chain)
    assert run_points(chain, {"error": 1e-6, "too_short": True}, {}).status == 701
    assert not chain.outputs["isotherm"]["points"][0]["converged"]


def test_points_above_the_error_are_marked(chain: Any) -> None:
    run_heat(chain)
    code = run_points(chain, {}, {"error": 1.0})
    assert (code.status, code.message) == (701, "Not converged: 100000 Pa; raise isotherm.max_steps.")
    assert [point["converged"] for point in chain.outputs["isotherm"]["points"]] == [True, False]


def test_molecules_in_holes_of_the_model_are_a_warning(chain: Any) -> None:
    """However small the error: the loading is that of the hole, and more steps do not help."""
    run_heat(chain)
    code = run_points(chain, {}, {"acceptance": holes(deletion=25), "model_holes": 25})
    assert (code.status, code.message[:75]) == (705, CODE_705)
    points = chain.outputs["isotherm"]["points"]
    assert [(point["converged"], point["hole_fraction"]) for point in points] == [(True, 0.0), (False, 0.25)]


CODE_705 = "Molecules sat in holes of the model at 100000 Pa, for up to 25 % of their t"


def test_a_point_that_blew_up_is_not_converged(chain: Any) -> None:
    run_heat(chain)
    code = run_points(chain, {}, {"explosion": {"message": "too hot"}, "checkpoint": False})
    assert code.status == 701
    assert chain.outputs["isotherm"]["points"][1]["reason"] == "too hot"


def test_missing_points(chain: Any) -> None:
    run_heat(chain)
    chain.on_run_finished("pressure_01_chunk_00", finished(MdGcmcCalculation, {}, 306, "it blew up"))
    code = run_points(chain, {})
    assert code.status == 702
    assert "100000 Pa: " in code.message
    assert "it blew up" in code.message
    assert chain.outputs["isotherm"]["failed"][0]["pressure_Pa"] == 1e5
    assert len(chain.outputs["isotherm"]["points"]) == 1


def test_no_point_at_all(chain: Any) -> None:
    run_heat(chain)
    for key in ("pressure_00_chunk_00", "pressure_01_chunk_00"):
        chain.on_run_finished(key, finished(MdGcmcCalculation, {}, 306, "it blew up"))
    assert chain.inspect_points().status == 301
    assert "heat_of_adsorption" in chain.outputs


def test_an_isotherm_without_heat(chain: Any) -> None:
    run_heat(chain, heat_gas=md(0.0, exit_status=306))
    code = run_points(chain, {}, {})
    assert code.status == 302
    assert "heat_gas" in code.message
    assert "heat_of_adsorption" not in chain.outputs
    assert len(chain.outputs["isotherm"]["points"]) == 2


def test_pressures_as_an_input_of_their_own(codes: dict[str, Any]) -> None:
    builder = MDGCMCIsothermWorkChain.get_builder_from_protocol(codes, mil_120())
    builder.pressures = orm.List([5.0, 6.0, 7.0])
    process = process_of(builder)
    process.setup()
    assert [point["pressure"] for point in process.ctx.points.values()] == [5.0, 6.0, 7.0]


@pytest.fixture
def batched(codes: dict[str, Any]) -> Any:
    section = {**ISOTHERM, "pressures": [1e3, 1e4, 1e5], "batch": True}
    builder = MDGCMCIsothermWorkChain.get_builder_from_protocol(
        codes, mil_120(), overrides={"isotherm": section, "henry_coefficient": NO_HENRY}, seed=2
    )
    process = process_of(builder)
    process.setup()
    return process


def test_points_that_share_a_job(batched: Any, chain: Any) -> None:
    """The job holds what the jobs of the points would, seeds included; the heat has its own jobs."""
    assert batched.ctx.window["queue"] == ["batch_00", "heat_loaded", "heat_framework", "heat_gas"]
    batched.submit_run("batch_00")
    process_class, inputs = batched.submitted[-1]
    assert process_class is MdGcmcBatchCalculation
    assert process_class.spec().inputs.validate(inputs) is None
    common = inputs["parameters"].get_dict()
    systems, share_calls = common.pop("systems"), common.pop("share_calls")
    assert share_calls is False
    assert list(systems) == ["pressure_00", "pressure_01", "pressure_02"]
    chain.submit_run("pressure_00_chunk_00")  # 1e4 Pa
    single = chain.submitted[-1][1]
    own = systems["pressure_01"]
    assert {**common, **own} == {**single["parameters"].get_dict(), "seed": own["seed"]}
    assert systems["pressure_00"]["seed"] == single["seed"].value


def test_converged_points_leave_the_job_and_failed_ones_do_too(batched: Any) -> None:
    """Of three points the first converges at 200 steps, the second fails in the second chunk, the third needs 300."""
    batched.close_window()
    first = batch(
        pressure_00={"steps": 100}, pressure_01={"steps": 100}, pressure_02={"steps": 60, "status": "stopped"}
    )
    batched.on_run_finished("batch_00", first)
    assert batched.ctx.window["queue"] == ["batch_01"]
    batched.submit_run("batch_01")
    inputs = batched.submitted[-1][1]
    steps = {name: own.get("steps") for name, own in inputs["parameters"]["systems"].items()}
    assert steps == {"pressure_00": 200, "pressure_01": 200, "pressure_02": 100}
    assert inputs["checkpoints"]["pressure_02"].uuid == first.outputs.checkpoints.pressure_02.uuid
    batched.close_window()
    second = batch(
        exit_status=701, pressure_00={"steps": 200}, pressure_01={"status": "failed"}, pressure_02={"steps": 100}
    )
    batched.on_run_finished("batch_01", second)
    assert batched.ctx.due == ["pressure_02"]
    batched.close_window()
    batched.on_run_finished("batch_02", batch(pressure_02={"steps": 200, "error": 1.0}))
    batched.on_run_finished("batch_03", batch(pressure_02={"steps": 300, "error": 1.0}))
    assert batched.ctx.window["queue"] == ["batch_03"]
    run_heat(batched)
    code = batched.inspect_points()
    points = batched.outputs["isotherm"]["points"]
    assert [point["steps"] for point in points] == [200, 100, 300]
    assert [point["converged"] for point in points] == [True, False, False]
    assert "it blew up" in points[1]["reason"]
    assert (code.status, code.message.split(";")[0]) == (701, "Not converged: 10000, 100000 Pa")


@pytest.mark.slow
def test_one_job_gives_the_isotherm_of_many(codes: dict[str, Any], tmp_path: Path) -> None:
    """A real model in a cell that breathes, through all layers, in two chunks: the series are equal to the last bit."""
    model = MaceModelData.from_file(write_tiny_mace(tmp_path / "tiny.model"))
    components = [CO2 | {"mole_fraction": 0.5}, WATER | {"mole_fraction": 0.5}]
    section = {"pressures": [1e9, 1e10], "chunk_steps": 10, "min_steps": 20, "max_steps": 20, "stride": 5}
    overrides = {
        "isotherm": section,
        "evaluation": {"device": "cpu", "dtype": "float64"},
        "gcmc": {
            "minimum_distance": 1.2,
            "model_hole_bound": -20.0,
            "md_steps_per_attempt": 1,
            "gas_flexible": False,
            "moves": {"translation": 1.0, "rotation": 1.0},
            "flexible_cell": "full",
            "md_steps_per_cell_move": 2,
        },
        "md": {"max_temperature_factor": 100.0},
        "henry_coefficient": NO_HENRY,
    }
    series = []
    for batch_points in (True, False):
        builder = MDGCMCIsothermWorkChain.get_builder_from_protocol(
            codes,
            mil_120(),
            orm.Dict({"name": "wet CO2", "components": components}),
            model,
            overrides={**overrides, "isotherm": {**section, "batch": batch_points}},
            seed=3,
        )
        outputs, node = engine.run_get_node(builder)
        assert node.exit_status == 701, node.exit_message
        jobs = [called.process_label for called in node.called if isinstance(called, orm.CalcJobNode)]
        assert jobs == ["MdGcmcBatchCalculation"] * 2 if batch_points else ["MdGcmcCalculation"] * 4
        points = outputs["isotherm"]["points"]
        assert [point["steps"] for point in points] == [20, 20]
        assert all(point["acceptance"]["cell"]["attempted"] == 10 for point in points)
        assert all(point["cell_volume_A3"] > 0 for point in points)
        series.append(outputs["timeseries"])
    for name in ("pressure_00", "pressure_01"):
        for array in ("step", "loading", "potential_energy", "volume"):
            assert np.array_equal(series[0][name].get_array(array), series[1][name].get_array(array)), (name, array)
        # Equal for a reason: molecules went in or out, and nothing stood still.
        assert len(set(series[0][name].get_array("loading"))) > 1, name
        assert len(set(series[0][name].get_array("potential_energy"))) == 20, name
