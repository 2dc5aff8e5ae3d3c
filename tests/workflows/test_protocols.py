"""Protocols: one shape for all, overrides key by key, and what is said about a key that does not exist."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import yaml
from aiida import orm
from aiida.plugins import WorkflowFactory
from aiida.plugins.entry_point import get_entry_point_names

from aiida_mofmace.calculations.validators import CHOICES
from aiida_mofmace.protocols import gas_names, load_changes, load_gas, load_protocol, protocol_names
from aiida_mofmace.worker.kernels.gases import mixture
from aiida_mofmace.worker.kernels.thermodynamics import fugacities
from aiida_mofmace.worker.programs.hybrid import _ENGINES, _THERMOSTATS
from aiida_mofmace.workflows.parameter_checks import check_parameters, validate_parameters
from aiida_mofmace.workflows.protocols import merge, resolve


def dotted(content: dict[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for key, value in content.items():
        is_section = isinstance(value, dict) and key != "options"  # options are mace's, each protocol has its own
        keys |= dotted(value, f"{prefix}{key}.") if is_section and value else {f"{prefix}{key}"}
    return keys


def test_all_protocols_have_the_same_keys() -> None:
    assert protocol_names() == ["balanced", "fast", "paper"]
    keys = [dotted(load_protocol(name)) for name in protocol_names()]
    assert keys[0] == keys[1] == keys[2]


@pytest.mark.parametrize("name", protocol_names())
def test_protocols_pass_their_own_checks(name: str) -> None:
    assert check_parameters(load_protocol(name)) is None
    assert resolve(name) == load_protocol(name)
    assert resolve(name, load_protocol("paper")) == merge(load_protocol(name), load_protocol("paper"))
    assert check_parameters(merge(load_protocol(name), load_changes("from_scratch"))) is None


def test_the_numbers_of_the_paper() -> None:
    paper = load_protocol("paper")
    assert (paper["level"], paper["foundation"]) == ("pbe-d3", "MACE-MP-0b2-medium")
    assert paper["sampling"]["temperatures"] == [100.0, 300.0, 500.0]
    assert paper["sampling"]["loadings"] == [0, 1, 4, 8, 12]
    assert paper["sampling"]["steps"] * paper["md"]["timestep_fs"] == 50_000
    assert (paper["initial_set"]["n_empty"], paper["initial_set"]["n_per_loading"]) == (800, 200)
    assert paper["selection"]["environments"] == "framework_and_gas"  # "also to focus on the adsorption sites"
    assert [paper["selection"]["soap"][key] for key in ("r_cut", "n_max", "l_max")] == [6.0, 9, 3]
    tuning = paper["fine_tune"]
    assert (tuning["batch_size"], tuning["patience"], tuning["weight_decay"]) == (8, 10, 5e-7)
    assert (tuning["energy_weight"], tuning["forces_weight"], tuning["learning_rate"]) == (1.0, 100.0, 1e-2)
    stage_two = [tuning[f"stage_two_{key}"] for key in ("energy_weight", "forces_weight", "learning_rate")]
    assert stage_two == [10.0, 1.0, 1e-4]
    learning = paper["active_learning"]
    assert (learning["committee_size"], learning["window"], learning["n_select"]) == (4, [0.06, 0.24], 200)
    assert paper["gcmc"]["md_steps_per_attempt"] == 5
    assert paper["isotherm"]["temperature"] == 303.0
    assert max(paper["isotherm"]["pressures"]) <= 1e5
    assert paper["validation"]["n_frames"] == 200
    assert paper["validation"]["steps"] * paper["md"]["timestep_fs"] == 1_500_000


def test_overrides_go_deep_and_leave_the_rest() -> None:
    fast = load_protocol("fast")
    parameters = resolve("fast", {"selection": {"soap": {"n_max": 4}}, "level": "gfn1-xtb-tblite"})
    assert parameters["selection"]["soap"] == {**fast["selection"]["soap"], "n_max": 4}
    assert parameters["level"] == "gfn1-xtb-tblite"
    assert {key: value for key, value in parameters.items() if key not in ("selection", "level")} == {
        key: value for key, value in fast.items() if key not in ("selection", "level")
    }
    assert resolve() == fast


def test_overrides_are_copied() -> None:
    window = [0.1, 0.2]
    parameters = resolve("fast", {"active_learning": {"window": window}})
    window.append(0.3)
    assert parameters["active_learning"]["window"] == [0.1, 0.2]


def test_unknown_protocol() -> None:
    with pytest.raises(ValueError, match="unknown protocol 'fats'; known are balanced, fast, paper"):
        resolve("fats")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"fine_tune": {"max_epoch": 3}},
            "unknown override key 'fine_tune.max_epoch'; did you mean '.*epochs'",
        ),
        (
            {"selection": {"soap": {"rcut": 5}}},
            "override key 'selection.soap.rcut'; did you mean .*soap.r_cut'",
        ),
        ({"isoterm": {}}, "unknown override key 'isoterm'; did you mean 'isotherm'"),
        ({"labels": {"xyz": 1}}, "unknown override key 'labels.xyz'; known here are charge"),
        ({"isotherm": 3}, "override 'isotherm' must be a mapping"),
        ({"level": {"name": "x"}}, "override 'level' must be a plain value such as 'gfn1-xtb'"),
        (["level"], "overrides must be a mapping"),
    ],
)
def test_wrong_overrides(overrides: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve("fast", overrides)


def test_open_keys_take_anything() -> None:
    overrides = {"fine_tune": {"options": {"scheduler": "ExponentialLR"}, "e0s": {"H": -13.6}}}
    parameters = resolve("fast", overrides)
    assert parameters["fine_tune"]["options"] == {"scheduler": "ExponentialLR"}
    assert parameters["fine_tune"]["e0s"] == {"H": -13.6}
    options = {"custom_scheduler_commands": "#SBATCH --gres=gpu:1"}
    assert merge(parameters, {"resources": {"worker_options": options}})["resources"]["worker_options"] == options


WORKER_OPTION = r"^resources\.worker_options"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "resources: {cp2k_options: {queue: cpu}}",
            r"cp2k_options\.queue is no option of AiiDA; did you mean 'queue_name'",
        ),
        (
            "resources: {worker_options: {gpus: 1}}",
            rf"{WORKER_OPTION}\.gpus is no option of AiiDA; known are account",
        ),
        ("resources: {worker_options: gpu}", rf"{WORKER_OPTION} is 'gpu'; give options of AiiDA by their names"),
        ("resources: {worker_options: null}", rf"{WORKER_OPTION} is null; give options of AiiDA by their names"),
        ("resources: {worker_options: {queue_name: 5}}", rf"{WORKER_OPTION}\.queue_name is 5; give text$"),
        (
            "resources: {worker_options: {max_wallclock_seconds: 2h}}",
            rf"{WORKER_OPTION}\.max_wallclock_seconds is '2h'; give a whole number$",
        ),
        (
            "resources: {worker_options: {max_wallclock_seconds: null}}",
            rf"{WORKER_OPTION}\.max_wallclock_seconds is null; give a whole number, or leave it out",
        ),
        ("resources: {worker_options: {max_memory_kb: 0}}", rf"{WORKER_OPTION}\.max_memory_kb is 0; .* above 0"),
        ("resources: {worker_options: {max_memory_kb: true}}", r"max_memory_kb is True; give a whole number"),
        (
            "resources: {worker_options: {custom_scheduler_commands: ['#SBATCH -N 1']}}",
            rf"{WORKER_OPTION}\.custom_scheduler_commands is \[.*; give text with a line for each item",
        ),
        ("resources: {worker_options: {resources: all}}", rf"{WORKER_OPTION}\.resources is 'all'; give a mapping"),
        ("resources: {cp2k_options: {stash: {a: 1}}}", r"^resources\.cp2k_options\.stash is .*Unexpected ports"),
        ("resources: {max_wallclock_seconds: 2h}", r"^resources\.max_wallclock_seconds is '2h'; .* at least 1"),
        (
            "resources: {max_wallclock_seconds: null}",
            r"^resources\.max_wallclock_seconds is null; give a whole number such as",
        ),
        ("resources: {num_nodes: 1}", r"unknown override key 'resources\.num_nodes'; known here are .*worker_options"),
        ("fine_tune: {device: gpu}", r"^fine_tune\.device is 'gpu'; it must be one of auto, cpu, cuda"),
        ("evaluation: {device: gpu}", r"^evaluation\.device is 'gpu'; it must be one of auto, cpu, cuda"),
        ("fine_tune: {dtype: double}", r"^fine_tune\.dtype is 'double'; it must be one of float32, float64"),
        ("fine_tune: {e0s: {}}", r"^fine_tune\.e0s is {}; give one of foundation, .*, or energies in eV by element"),
        ("fine_tune: {e0s: {H: low}}", r"^fine_tune\.e0s is {'H': 'low'}; give one of"),
        ("fine_tune: {e0s: [1.0]}", r"^fine_tune\.e0s is \[1.0\]; give one of"),
        ("fine_tune: {n_replay: many}", r"^fine_tune\.n_replay is 'many'; .* whole and at least 1"),
        ("fine_tune: {n_replay: 0}", r"^fine_tune\.n_replay is 0; .* whole and at least 1"),
        ("fine_tune: {processes: 4}", r"^fine_tune\.processes is 4, but .* has 1 core; raise resources\.cores"),
        ("fine_tune: {ema_decay: 2}", r"^fine_tune\.ema_decay is 2; give a number from 0 to 1"),
        ("fine_tune: {options: none}", r"^fine_tune\.options.* is 'none'; give a mapping"),
        ("fine_tune: {options: {schedular: x}}", r"^fine_tune\.options: mace_run_train has no .* 'scheduler'"),
        ("fine_tune: {multihead: 'no'}", r"^fine_tune\.multihead is 'no'; give true or false"),
        (
            "gcmc: {surrogate: {force_field: dreiding}}",
            r"^gcmc\.surrogate\.force_field is 'dreiding'; it must be one of uff",
        ),
        ("gcmc: {thermostat: nose}", r"^gcmc\.thermostat is 'nose'; it must be one of nose_hoover, langevin"),
        ("gcmc: {thermostat: null}", r"^gcmc\.thermostat is null; give text such as 'nose_hoover'$"),
        ("gcmc: {moves: {translation: -1}}", r"^gcmc\.moves: the frequency of translation is -1; .* at least 0"),
        ("gcmc: {moves: {exchange: 0}}", r"^gcmc\.moves: no kind of move has a frequency above 0; give exchange one"),
        ("gcmc: {moves: {exchange: often}}", r"^gcmc\.moves\.exchange is 'often'; give a number such as 1.0"),
        ("gcmc: {model_hole_bound: low}", r"^gcmc\.model_hole_bound is 'low'; give a number such as -1.5"),
        ("gcmc: {framework_flexible: 1}", r"^gcmc\.framework_flexible is 1; give true or false"),
        ("gcmc: {cell_pressure: -1.0}", r"^gcmc\.cell_pressure is -1.0; give a number of at least 0 in Pa"),
        (
            "isotherm: {equation_of_state: peng-robinson}",
            r"^isotherm\.equation_of_state is 'peng-robinson'; it must be one of ideal, peng_robinson",
        ),
        ("isotherm: {min_effective_samples: few}", r"^isotherm\.min_effective_samples is 'few'; .* at least 1"),
        ("isotherm: {pressures: 1.0e+4}", r"^isotherm\.pressures is 10000.0; give a list such as \["),
        ("md: {minimum_distance: -1}", r"^md\.minimum_distance is -1; give a number of at least 0 in Å"),
        ("sampling: {steps: [100, 200]}", r"^sampling\.steps is \[100, 200\]; give a whole number such as"),
        ("sampling: {pressure: high}", r"^sampling\.pressure is 'high'; give a number such as 100000.0, or null"),
        ("sampling: {pair_style: lj}", r"^sampling\.pair_style is 'lj'; it must be one of mace, "),
        ("active_learning: {loadings: [], pressures: []}", r"^active_learning: .* both empty; give at least one"),
        ("active_learning: {window: null}", r"^active_learning\.window is null; give a list such as \["),
        ("labels: {multiplicity: one}", r"^labels\.multiplicity is 'one'; .* whole and at least 1"),
        ("labels: {charge: 0.5}", r"^labels\.charge is 0.5; give a whole number such as 0"),
        ("labels: {kpoints: [2, a, 2]}", r"^labels\.kpoints is .*; give a list such as \[2, 2, 2\], or null"),
        ("labels: {magnetization: {Fe: up}}", r"^labels\.magnetization is .*; give moments in μB by element"),
        ("labels: {minimum_distance: null}", r"^labels\.minimum_distance is null; give a number such as 0.6"),
        ("selection: {duplicate_tolerance: small}", r"^selection\.duplicate_tolerance is 'small'; give a number of at"),
        ("level: 5", r"^level is 5; give text such as"),
    ],
)
def test_values_that_no_key_can_have(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve("fast", yaml.safe_load(text))


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("isotherm: {min_effective_samples: '50'}", "isotherm", "min_effective_samples", 50),
        ("labels: {minimum_distance: '0.6'}", "labels", "minimum_distance", 0.6),
        ("selection: {duplicate_tolerance: 1e-3}", "selection", "duplicate_tolerance", 1e-3),
        ("isotherm: {pressures: [1e4, 1.0e5]}", "isotherm", "pressures", [1e4, 1e5]),
        ("sampling: {steps: 1e5}", "sampling", "steps", 100000),
        ("sampling: {pressure: 1e5}", "sampling", "pressure", 1e5),
        ("fine_tune: {e0s: {H: -1.3e1}}", "fine_tune", "e0s", {"H": -13.0}),
        ("labels: {multiplicity: '3'}", "labels", "multiplicity", 3),
        ("selection: {detached_distance: null}", "selection", "detached_distance", None),
        ("fine_tune: {n_replay: null}", "fine_tune", "n_replay", None),
        ("active_learning: {loadings: [], pressures: [], max_rounds: 0}", "active_learning", "pressures", []),
        ("fine_tune: {processes: 4}\nresources: {cores: 4}", "fine_tune", "processes", 4),
        (
            "fine_tune: {processes: 2}\nresources: {worker_options: {resources: {num_cpus: 2}}}",
            "fine_tune",
            "processes",
            2,
        ),
    ],
)
def test_values_that_are_taken(text: str, section: str, key: str, value: Any) -> None:
    """Numbers that YAML reads as text are numbers, of the type that the protocols have."""
    found = resolve("fast", yaml.safe_load(text))[section][key]
    assert found == value
    assert type(found) is type(value)


def test_numbers_of_numpy_are_taken() -> None:
    overrides = {"isotherm": {"pressures": np.array([1e4, 1e5])}, "sampling": {"loadings": [np.int64(2)]}}
    parameters = resolve("fast", overrides)
    assert parameters["isotherm"]["pressures"] == [1e4, 1e5]
    assert type(parameters["sampling"]["loadings"][0]) is int


def test_parameters_by_hand_are_checked_as_well(aiida_profile: Any) -> None:
    parameters = resolve("fast") | {"isotherm": resolve("fast")["isotherm"] | {"min_effective_samples": "50"}}
    assert "isotherm.min_effective_samples is '50'" in str(validate_parameters(orm.Dict(parameters), None))
    assert str(validate_parameters(orm.Dict(resolve("fast") | {"md": 3}), None)).startswith("md is 3; give a mapping")


def builders() -> list[Any]:
    """Functions that make a builder from one of our protocols."""
    names = [name for name in get_entry_point_names("aiida.workflows") if name.startswith("mofmace.")]
    if find_spec("aiida_lsmo") is None:  # the extra `uff` is not installed
        names = [name for name in names if not name.startswith("mofmace.uff_")]
    found = [getattr(WorkflowFactory(name), "get_builder_from_protocol", None) for name in names]
    return [build for build in found if build and "overrides" in inspect.signature(build).parameters]


@pytest.mark.parametrize("build", builders(), ids=lambda build: build.__self__.__name__)
def test_every_builder_refuses_a_wrong_value(aiida_profile: Any, build: Any) -> None:
    needed = [key for key, one in inspect.signature(build).parameters.items() if one.default is one.empty]
    with pytest.raises(ValueError, match=r"fine_tune\.device is 'gpu'"):
        build(**{key: {} for key in needed}, overrides={"fine_tune": {"device": "gpu"}})


def test_choices_are_those_of_the_worker() -> None:
    assert CHOICES["thermostat"] == _THERMOSTATS
    assert CHOICES["engine"] == _ENGINES
    for equation in CHOICES["equation_of_state"]:
        assert fugacities(1e4, 300.0, mixture(load_gas("CO2")), equation)["CO2"] == pytest.approx(1e4, rel=1e-2)


def test_gases_by_name() -> None:
    assert "CO2" in gas_names()
    assert load_gas("CO2")["symbols"] == ["C", "O", "O"]
    with pytest.raises(ValueError, match=r"unknown gas 'CO3'; known are .*CO2"):
        load_gas("CO3")
