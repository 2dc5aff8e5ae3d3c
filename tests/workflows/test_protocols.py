"""Protocols: one shape for all, overrides key by key, and what is said about a key that does not exist."""

from __future__ import annotations

from typing import Any

import pytest

from aiida_mofmace.protocols import gas_names, load_gas, load_protocol, protocol_names
from aiida_mofmace.workflows.parameter_checks import check_parameters
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


def test_gases_by_name() -> None:
    assert "CO2" in gas_names()
    assert load_gas("CO2")["symbols"] == ["C", "O", "O"]
    with pytest.raises(ValueError, match=r"unknown gas 'CO3'; known are .*CO2"):
        load_gas("CO3")
