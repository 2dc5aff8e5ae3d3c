"""Bad input is refused before anything is stored, with a message that says what to do."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.engine.processes.calcjobs.calcjob import CalcJob
from aiida.plugins import CalculationFactory
from ase import Atoms

from aiida_mofmace.calculations.validators import check_integer, check_positive, check_window
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.worker.kernels.frames import Frames

from ..worker.engine_fixtures import CO2, write_tiny_mace

PARAMETERS: dict[str, dict[str, Any]] = {
    "mofmace.mace_md": {"temperature": 300.0, "timestep_fs": 0.5, "steps": 10, "stride": 1},
    "mofmace.md_gcmc": {
        "temperature": 300.0,
        "pressure": 1e5,
        "timestep_fs": 0.5,
        "steps": 10,
        "stride": 1,
        "md_steps_per_attempt": 5,
        "attempts_per_block": 1,
    },
    "mofmace.widom": {
        "temperature": 300.0,
        "timestep_fs": 0.5,
        "steps": 10,
        "stride": 1,
        "insertions": 5,
        "equilibration_steps": 0,
    },
    "mofmace.diversity_select": {"method": "kmeans", "n_select": 3},
    "mofmace.committee": {"window": [0.06, 0.24]},
    "mofmace.fine_tune": {"batch_size": 2, "max_epochs": 2, "learning_rate": 1e-3, "valid_fraction": 0.1},
}

PARAMETERS["mofmace.md_gcmc_batch"] = PARAMETERS["mofmace.md_gcmc"] | {"systems": {"pressure_00": {"pressure": 1e4}}}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_mace(tmp_path_factory.mktemp("model") / "tiny.model")


def structure(symbols: str) -> orm.StructureData:
    positions = [[2.0 * i, 0.0, 0.0] for i in range(len(Atoms(symbols)))]
    return orm.StructureData(ase=Atoms(symbols, positions, cell=[12, 12, 12], pbc=True))


def trajectory(symbols: str) -> FramesData:
    return FramesData.from_frames(Frames.from_atoms([structure(symbols).get_ase()]))


def dataset(symbols: str) -> LabelledDatasetData:
    atoms = structure(symbols).get_ase()
    atoms.info["REF_energy"] = 0.0
    atoms.set_array("REF_forces", atoms.positions)
    return LabelledDatasetData.from_atoms([atoms] * 4, {"name": "PBE", "hash": "x", "program": "cp2k"})


def inputs_of(plugin: str, code: orm.AbstractCode, model: MaceModelData) -> dict[str, Any]:
    """Inputs that nothing is wrong with."""
    special: dict[str, dict[str, Any]] = {
        "mofmace.mace_md": {"model": model, "structure": structure("AlO"), "gas": orm.Dict(CO2)},
        "mofmace.md_gcmc": {"model": model, "structure": structure("AlO"), "gas": orm.Dict(CO2)},
        "mofmace.md_gcmc_batch": {"model": model, "structure": structure("AlO"), "gas": orm.Dict(CO2)},
        "mofmace.widom": {"model": model, "structure": structure("AlO"), "gas": orm.Dict(CO2)},
        "mofmace.diversity_select": {"trajectories": {"a": trajectory("AlO")}},
        "mofmace.committee": {"models": {"a": model}, "trajectories": {"a": trajectory("AlO")}},
        "mofmace.fine_tune": {"dataset": dataset("AlO"), "foundation": model},
    }
    common = {"code": code, "seed": orm.Int(1), "parameters": orm.Dict(PARAMETERS[plugin])}
    return common | special[plugin]


@pytest.fixture
def refusal(worker_code: orm.InstalledCode, model_file: Path) -> Callable[..., str]:
    """Return what a calculation says to its good inputs with some of them changed."""
    model = MaceModelData.from_file(model_file)

    def of(plugin: str, **changes: Any) -> str:
        process: type[CalcJob] = CalculationFactory(plugin)
        inputs = inputs_of(plugin, worker_code, model)
        parameters = changes.pop("parameters", {})
        inputs["parameters"] = orm.Dict({**PARAMETERS[plugin], **parameters})
        inputs = {key: value for key, value in {**inputs, **changes}.items() if value is not None}
        error = process.spec().inputs.validate({**inputs, "metadata": {"options": {"resources": {"num_machines": 1}}}})
        return "" if error is None else error.message

    return of


@pytest.mark.parametrize("plugin", PARAMETERS)
def test_good_input_is_taken(refusal: Callable[..., str], plugin: str) -> None:
    assert refusal(plugin) == ""


@pytest.mark.parametrize(
    ("plugin", "parameters", "message"),
    [
        ("mofmace.mace_md", {"temperature": -300.0}, "temperature is -300.0; give a number above 0 in K"),
        ("mofmace.mace_md", {"temperature": True}, "temperature is True; give a number above 0 in K"),
        ("mofmace.mace_md", {"steps": 0}, "steps is 0; give an integer of at least 1"),
        ("mofmace.mace_md", {"loading": -1}, "loading is -1; give an integer of at least 0"),
        ("mofmace.mace_md", {"device": "gpu"}, "device is 'gpu'; it must be one of auto, cpu, cuda"),
        ("mofmace.md_gcmc", {"pressure": -1.0}, "pressure is -1.0; give a number above 0 in Pa"),
        ("mofmace.md_gcmc", {"dtype": "float16"}, "dtype is 'float16'; it must be one of float32, float64"),
        ("mofmace.md_gcmc", {"md_steps_per_attempt": 0}, "md_steps_per_attempt is 0; give an integer of at least 1"),
        ("mofmace.md_gcmc", {"attempts_per_block": 0}, "attempts_per_block is 0; give an integer of at least 1"),
        ("mofmace.md_gcmc", {"moves": {"swap": 1.0}}, "moves swap are unknown; known are exchange, translation"),
        (
            "mofmace.md_gcmc",
            {"moves": {"exchange": 1.0, "rotation": -1.0}},
            "frequency of rotation is -1.0; give a number",
        ),
        ("mofmace.md_gcmc", {"moves": {"exchange": 0.0}}, "no kind of move has a frequency above 0; give exchange one"),
        ("mofmace.md_gcmc", {"thermostat": "nose"}, "thermostat is 'nose'; it must be one of nose_hoover, langevin"),
        ("mofmace.md_gcmc", {"engine": "gromacs"}, "engine is 'gromacs'; it must be one of native, lammps"),
        ("mofmace.md_gcmc", {"engine": "lammps", "gas_flexible": False}, "the engine lammps holds nothing"),
        ("mofmace.md_gcmc", {"engine": "lammps", "moves": {"exchange": 1, "rotation": 1}}, "no moves but exchanges"),
        ("mofmace.md_gcmc", {"initial_loading": {"CO2": -1}}, "CO2 is -1; give an integer of at least 0"),
        (
            "mofmace.md_gcmc_batch",
            {"systems": {}},
            "systems is missing; give the parameters of each system by its name",
        ),
        ("mofmace.md_gcmc_batch", {"systems": {"1 bar": {}}}, "system '1 bar' needs another name"),
        (
            "mofmace.md_gcmc_batch",
            {"systems": {"a": {"pressure": 0}}},
            "system a: pressure is 0; give a number above 0",
        ),
        ("mofmace.md_gcmc_batch", {"systems": {"a": {"seed": -1}}}, "system a: seed is -1; give an integer"),
        ("mofmace.widom", {"insertions": 0}, "insertions is 0; give an integer of at least 1"),
        ("mofmace.diversity_select", {"n_select": 0}, "n_select is 0; give an integer of at least 1"),
        ("mofmace.mace_md", {"engine": "gromacs"}, "engine is 'gromacs'; it must be one of native, lammps"),
        (
            "mofmace.mace_md",
            {"pressure": 1e5, "flexible_cell": "none"},
            "a pressure needs a cell that changes; set flexible_cell to full, or pressure to null",
        ),
        (
            "mofmace.mace_md",
            {"pressure": 1e5, "flexible_cell": "isotropic", "engine": "lammps"},
            "the engine lammps changes the whole cell; set flexible_cell to full, or engine to native",
        ),
        ("mofmace.mace_md", {"pressure": "1 bar"}, "pressure is '1 bar'; give a number in Pa, or null"),
        ("mofmace.mace_md", {"pressure": 1e5, "cell_step": 0.0}, "cell_step is 0.0; give a number above 0"),
        ("mofmace.md_gcmc", {"flexible_cell": "soft"}, "flexible_cell is 'soft'; it must be one of none, isotropic"),
        (
            "mofmace.md_gcmc",
            {"flexible_cell": "full", "framework_flexible": False},
            "flexible_cell needs a framework that moves; set framework_flexible to true",
        ),
        ("mofmace.md_gcmc", {"flexible_cell": "full", "engine": "lammps"}, "flexible_cell needs the engine native"),
        (
            "mofmace.md_gcmc",
            {"flexible_cell": "full", "md_steps_per_cell_move": 12},
            "md_steps_per_cell_move must be a multiple of md_steps_per_attempt",
        ),
        (
            "mofmace.diversity_select",
            {"environments": "gases"},
            "environments is 'gases'; it must be one of all, framework, gas, framework_and_gas, species",
        ),
        (
            "mofmace.diversity_select",
            {"quotas": {"*": 9}},
            "the quotas {'*': 9} add up to more than n_select = 3",
        ),
        ("mofmace.diversity_select", {"method": "best"}, "method is 'best'; it must be one of kmeans, fps"),
        ("mofmace.committee", {"window": [0.24, 0.06]}, "window [0.24, 0.06] is empty"),
        ("mofmace.committee", {"window": [0.1, 0.1]}, "window [0.1, 0.1] is empty"),
        ("mofmace.committee", {"window": [0.1]}, "give two numbers in eV/Å"),
        ("mofmace.fine_tune", {"max_epochs": 0}, "max_epochs is 0"),
        ("mofmace.fine_tune", {"valid_fraction": 1.0}, "valid_fraction is 1.0; give a fraction from 0 to below 1"),
        ("mofmace.fine_tune", {"multihead": True}, "multihead training needs replay data"),
        ("mofmace.fine_tune", {"options": {"scheduler_patienc": 5}}, "did you mean 'scheduler_patience'?"),
        ("mofmace.fine_tune", {"options": {"lr": 0.1}}, "set by the parameter 'learning_rate'"),
        ("mofmace.fine_tune", {"options": {"restart_latest": True}}, "is decided by the program"),
        ("mofmace.fine_tune", {"options": {"num_channels": 64}}, "would change nothing: the foundation model decides"),
        ("mofmace.fine_tune", {"test_fraction": 0.9}, "are too few: 1 would validate"),
        ("mofmace.fine_tune", {"batch_size": 90}, "do not fill a batch of 90; lower batch_size or add labels"),
    ],
)
def test_bad_parameters(refusal: Callable[..., str], plugin: str, parameters: dict[str, Any], message: str) -> None:
    assert message in refusal(plugin, parameters=parameters)


@pytest.mark.parametrize(
    ("plugin", "port", "make"),
    [
        ("mofmace.mace_md", "structure", structure),
        ("mofmace.md_gcmc", "structure", structure),
        ("mofmace.committee", "trajectories", lambda symbols: {"a": trajectory(symbols)}),
        ("mofmace.fine_tune", "dataset", dataset),
    ],
)
def test_element_that_the_model_does_not_know(
    refusal: Callable[..., str], plugin: str, port: str, make: Callable[[str], Any]
) -> None:
    message = refusal(plugin, **{port: make("ZnO")})
    assert "knows no Zn of the" in message
    assert "only H, C, O, Al" in message


def test_gas_that_the_model_does_not_know(refusal: Callable[..., str]) -> None:
    gas = orm.Dict({**CO2, "symbols": ["N", "N"]})
    assert "knows no N of the structure and gas" in refusal("mofmace.mace_md", gas=gas)


def test_what_belongs_together(refusal: Callable[..., str]) -> None:
    assert "neither structure nor gas" in refusal("mofmace.mace_md", structure=None, gas=None)
    assert "gas_phase_box" in refusal("mofmace.mace_md", structure=None)
    assert "no gas is given" in refusal("mofmace.mace_md", gas=None, parameters={"loading": 2})
    assert "either trajectories or a dataset" in refusal("mofmace.committee", dataset=dataset("AlO"))
    assert "either trajectories or a dataset" in refusal("mofmace.committee", trajectories={})
    assert refusal("mofmace.committee", dataset=dataset("AlO"), trajectories={}) == ""


def test_code_of_the_wrong_plugin(
    refusal: Callable[..., str], aiida_code_installed: Callable[..., orm.InstalledCode], worker_code: orm.InstalledCode
) -> None:
    cp2k = aiida_code_installed(label="a-cp2k", default_calc_job_plugin="cp2k")
    assert "code a-cp2k is set up for cp2k; give a code whose default plugin begins with 'mofmace.'" in refusal(
        "mofmace.mace_md", code=cp2k
    )
    other = aiida_code_installed(label="b-cp2k", default_calc_job_plugin="mofmace.cp2k_label")
    assert "code b-cp2k is CP2K; give the code of the Python interpreter" in refusal("mofmace.mace_md", code=other)
    label = CalculationFactory("mofmace.cp2k_label").spec().inputs["code"]
    assert "code worker is set up for mofmace.mace_md; give a code of CP2K" in label.validate(worker_code).message
    assert label.validate(cp2k) is None
    assert label.validate(other) is None


@pytest.mark.parametrize(
    ("plugin", "level", "symbols", "message"),
    [
        ("mofmace.cp2k_label", "gfn1-xtb-tblite", "AlO", "is computed by tblite, not by cp2k"),
        ("mofmace.tblite_label", "gfn1-xtb", "AlO", "is computed by cp2k, not by tblite"),
        ("mofmace.cp2k_label", "pbe-d3", "UO", "has no basis set and potential for U"),
    ],
)
def test_level_that_does_not_fit(
    aiida_localhost: orm.Computer, plugin: str, level: str, symbols: str, message: str
) -> None:
    validator = CalculationFactory(plugin).spec().inputs.validator
    inputs = {"structure": structure(symbols), "level": orm.Dict(LevelOfTheory.load(level).to_dict())}
    assert message in validator(inputs, None)


def test_level_that_is_none(aiida_profile: Any) -> None:
    port = CalculationFactory("mofmace.cp2k_label").spec().inputs["level"]
    assert "give LevelOfTheory.load(name).to_dict()" in port.validate(orm.Dict({"name": "PBE"})).message


def test_refused_when_the_builder_is_filled(worker_code: orm.InstalledCode) -> None:
    builder = CalculationFactory("mofmace.mace_md").get_builder()
    with pytest.raises(ValueError, match="temperature is -1"):
        builder.parameters = orm.Dict({**PARAMETERS["mofmace.mace_md"], "temperature": -1})


def test_checks_take_what_is_right() -> None:
    assert check_window(None) is None
    assert check_window([0.0, 0.2]) is None
    assert check_positive({"a": 1e-9}, {"a": ""}) is None
    assert check_integer({"a": 0}, {"a": 0}) is None
    assert check_integer({"a": 1.0}, {"a": 0}) == "a is 1.0; give an integer of at least 0"


def test_replay_files_that_cannot_be(refusal: Callable[..., str]) -> None:
    first, same, empty = (orm.SinglefileData(io.BytesIO(text)) for text in (b"2\n\n", b"2\n\n", b"\n"))
    assert "replay_train and replay_valid are the same" in refusal(
        "mofmace.fine_tune", replay_train=first, replay_valid=same
    )
    assert "replay_train is an empty file" in refusal("mofmace.fine_tune", replay_train=empty)


def test_calibration_without_a_ratio(refusal: Callable[..., str]) -> None:
    """Members that agree everywhere have none."""
    assert "ratio is None; give a number above 0" in refusal("mofmace.committee", calibration=orm.Dict({"ratio": None}))
    assert refusal("mofmace.committee", calibration=orm.Dict({"ratio": 2.5})) == ""
