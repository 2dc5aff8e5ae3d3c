"""Inputs of the calculation jobs, from the parameters of a protocol: one function for each kind of job."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from aiida import orm

from aiida_mofmace.calculations.validators import gas_elements
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.protocols import load_force_field
from aiida_mofmace.worker.kernels.gases import mixture
from aiida_mofmace.worker.kernels.thermodynamics import fugacities

from .label_quality import quality_bounds

__all__ = [
    "UFF_GROUP",
    "binding_inputs",
    "blank_model_inputs",
    "child_seed",
    "committee_inputs",
    "cp2k_options",
    "gas_phase_inputs",
    "gcmc_inputs",
    "label_inputs",
    "lone_gas_group",
    "md_inputs",
    "md_key",
    "model_head",
    "point_fugacity",
    "select_inputs",
    "widom_inputs",
    "worker_options",
]

#: What the groups of snapshots of Monte Carlo with UFF begin with.
UFF_GROUP = "uff"
#: What only the section `sampling` says of an MD run.
_SAMPLING_ONLY = (
    "check_first_frame",
    "engine",
    "pair_style",
    "pressure",
    "barostat_time_fs",
    "flexible_cell",
    "cell_step",
    "md_steps_per_cell_move",
    "max_volume_change",
)
#: What insertions on trial have in common with those of hybrid MD-GCMC.
_WIDOM = ("minimum_distance", "model_hole_bound", "framework_flexible", "gas_flexible")
#: Name that mace gives the head it fine-tunes, beside the replay head.
_FINE_TUNED_HEAD = "Default"

Parameters = Mapping[str, Any]


def child_seed(seed: orm.Int, key: str) -> orm.Int:
    """Return the seed of one job: a function of the seed of its work chain and the name of the job."""
    digest = hashlib.sha256(f"{seed.value}/{key}".encode()).digest()
    return orm.Int(int.from_bytes(digest[:4], "big") >> 1)


def model_head(model: MaceModelData) -> str | None:
    """Return the head that describes the system under study: the fine-tuned one; None where there is only one."""
    return _FINE_TUNED_HEAD if len(model.heads) > 1 and _FINE_TUNED_HEAD in model.heads else None


def worker_options(parameters: Parameters) -> dict[str, Any]:
    """Return the scheduler options of a job that runs the worker."""
    resources = parameters["resources"]
    return {
        "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1, "num_cores_per_mpiproc": resources["cores"]},
        "max_wallclock_seconds": resources["max_wallclock_seconds"],
        **resources["worker_options"],
    }


def cp2k_options(parameters: Parameters) -> dict[str, Any]:
    """Return the scheduler options of a job that runs CP2K."""
    resources = parameters["resources"]
    return {
        "resources": {"num_machines": 1, "num_mpiprocs_per_machine": resources["cores"]},
        "max_wallclock_seconds": resources["max_wallclock_seconds"],
        **resources["cp2k_options"],
    }


def _metadata(key: str, label: str, parameters: Parameters) -> dict[str, Any]:
    return {"call_link_label": key, "label": label, "options": worker_options(parameters)}


def md_key(temperature: float, loading: int, prefix: str = "") -> str:
    """Return the name of an MD run in the lab journal, e.g. md_300k_4."""
    return f"{prefix}md_{temperature:g}k_{loading}".replace(".", "_")


def lone_gas_group(gas: str) -> str:
    """Return the group of the displaced frames of a molecule alone, from which an untrained model learns its energy."""
    return f"rattled_{gas}_alone"


def _md_parameters(parameters: Parameters, run: Parameters, temperature: float, model: MaceModelData) -> dict[str, Any]:
    return {
        **parameters["evaluation"],
        **parameters["md"],
        "temperature": temperature,
        "steps": run["steps"],
        "equilibration_steps": run["equilibration_steps"],
        "stride": run["stride"],
        "head": model_head(model),
        **{key: run[key] for key in _SAMPLING_ONLY if key in run},
    }


def md_inputs(
    key: str,
    inputs: Mapping[str, Any],
    parameters: Parameters,
    *,
    run: Parameters,
    model: MaceModelData,
    temperature: float,
    loading: int,
    cells: int = 1,
) -> dict[str, Any]:
    """Return the inputs of an MD run of the framework with some gas molecules.

    :param key: name of the run, unique in its work chain
    :param inputs: code, structure, gas and seed
    :param parameters: of the protocol
    :param run: section of the parameters with steps, equilibration_steps and stride
    :param temperature: in K
    :param loading: molecules per cell
    :param cells: unit cells that the structure is made of
    """
    gas = inputs["gas"].get_dict()["name"]
    content = _md_parameters(parameters, run, temperature, model)
    content |= {"loading": loading * cells, "group": f"md_{temperature:g}K_{loading}{gas}"}
    return {
        "code": inputs["code"],
        "structure": inputs["structure"],
        "gas": inputs["gas"],
        "model": model,
        "seed": child_seed(inputs["seed"], key),
        "parameters": orm.Dict(content),
        "metadata": _metadata(key, f"MD at {temperature:g} K, {loading} {gas}", parameters),
    }


def gas_phase_inputs(
    key: str, inputs: Mapping[str, Any], parameters: Parameters, run: Parameters, model: MaceModelData
) -> dict[str, Any]:
    """Return the inputs of an MD run of one gas molecule alone in a box; see :func:`md_inputs`."""
    content = _md_parameters(parameters, run, run["temperature"], model)
    gas = inputs["gas"].get_dict()["name"]
    content |= {"loading": 0, "group": f"md_{gas}_alone", "gas_phase_box": run["gas_phase_box"]}
    return {
        "code": inputs["code"],
        "gas": inputs["gas"],
        "model": model,
        "seed": child_seed(inputs["seed"], key),
        "parameters": orm.Dict(content),
        "metadata": _metadata(key, f"MD at {run['temperature']:g} K of one {gas} alone", parameters),
    }


def point_fugacity(gas: Parameters, pressure: float, run: Parameters) -> float | dict[str, float]:
    """Return the fugacity of a gas in Pa, or those of the components of a mixture by name.

    :param gas: description of the molecule or the mixture
    :param pressure: in Pa
    :param run: section of the parameters with temperature and equation_of_state
    """
    values = fugacities(pressure, run["temperature"], mixture(gas), run["equation_of_state"])
    return values if len(values) > 1 else next(iter(values.values()))


def gcmc_inputs(
    key: str,
    inputs: Mapping[str, Any],
    parameters: Parameters,
    *,
    run: Parameters,
    model: MaceModelData,
    pressure: float,
    steps: int,
    checkpoint: orm.SinglefileData | None = None,
) -> dict[str, Any]:
    """Return the inputs of a run of hybrid MD-GCMC, or of one chunk of it.

    :param run: section of the parameters with temperature, stride, initial_loading and equation_of_state
    :param pressure: in Pa
    :param steps: MD steps of this job
    :param checkpoint: state to go on from
    """
    gas = inputs["gas"].get_dict()
    temperature = run["temperature"]
    content = {
        **parameters["evaluation"],
        **parameters["md"],
        **parameters["gcmc"],
        "surrogate": _surrogate(parameters["gcmc"]["surrogate"], inputs),
        "temperature": temperature,
        "pressure": pressure,
        "fugacity": point_fugacity(gas, pressure, run),
        "initial_loading": run["initial_loading"],
        "explosion_distance": parameters["md"]["minimum_distance"],
        "steps": steps,
        "stride": run["stride"],
        "head": model_head(model),
        "group": f"gcmc_{temperature:g}K_{pressure:g}Pa_{gas['name']}",
    }
    label = f"MD-GCMC of {gas['name']} at {temperature:g} K, {pressure:g} Pa"
    return {
        "code": inputs["code"],
        "structure": inputs["structure"],
        "gas": inputs["gas"],
        "model": model,
        "seed": child_seed(inputs["seed"], key),
        "parameters": orm.Dict(content),
        "metadata": _metadata(key, label, parameters),
        **({"checkpoint": checkpoint} if checkpoint is not None else {}),
    }


def widom_inputs(key: str, inputs: Mapping[str, Any], parameters: Parameters, gas: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of test-particle insertions at the temperature of the isotherm.

    :param inputs: code, structure, model and seed
    :param gas: description of the molecule
    """
    temperature = parameters["isotherm"]["temperature"]
    content = {
        **parameters["evaluation"],
        **parameters["md"],
        **{name: parameters["gcmc"][name] for name in _WIDOM},
        **parameters["henry_coefficient"],
        "temperature": temperature,
        "explosion_distance": parameters["md"]["minimum_distance"],
        "head": model_head(inputs["model"]),
        "group": f"widom_{temperature:g}K_{gas['name']}",
    }
    return {
        **{name: inputs[name] for name in ("code", "structure", "model")},
        "gas": orm.Dict(gas),
        "seed": child_seed(inputs["seed"], key),
        "parameters": orm.Dict(content),
        "metadata": _metadata(key, f"Henry coefficient of {gas['name']} at {temperature:g} K", parameters),
    }


def _surrogate(section: Parameters, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Put the parameters of the elements at hand in place of the name of a force field."""
    if section["force_field"] is None:
        return None
    table = load_force_field(section["force_field"])["parameters"]
    elements = sorted({*inputs["structure"].get_symbols_set(), *gas_elements(inputs["gas"])} & set(table))
    rest = {key: value for key, value in section.items() if key != "force_field"}
    return {**rest, "parameters": {element: table[element] for element in elements}}


def committee_inputs(
    key: str,
    code: orm.AbstractCode,
    parameters: Parameters,
    *,
    models: Mapping[str, MaceModelData],
    frames: Mapping[str, FramesData] | LabelledDatasetData,
    window: list[float] | None = None,
    calibration: orm.Dict | None = None,
) -> dict[str, Any]:
    """Return the inputs of an evaluation of frames, or of a labelled dataset, by all models.

    :param window: bounds of the largest force deviation in eV/Å between which frames are candidates; None for none
    :param calibration: of the committee, with the ratio by which its deviation is scaled; None to take it as it is
    """
    content = {
        **parameters["evaluation"],
        "window": window,
        "heads": [model_head(models[name]) for name in sorted(models)],
        "max_candidates": parameters["active_learning"]["max_candidates"],
    }
    what = f"{len(models)} model{'s' if len(models) > 1 else ''}"
    source: dict[str, Any] = {"dataset": frames} if isinstance(frames, orm.Data) else {"trajectories": dict(frames)}
    if calibration is not None:
        source["calibration"] = calibration
    return {
        "code": code,
        "models": dict(models),
        "parameters": orm.Dict(content),
        "metadata": _metadata(key, f"Evaluation by {what}", parameters),
        **source,
    }


def select_inputs(
    key: str,
    inputs: Mapping[str, Any],
    parameters: Parameters,
    *,
    trajectories: Mapping[str, FramesData],
    n_select: int,
    quotas: dict[str, int] | None = None,
    dataset: LabelledDatasetData | None = None,
) -> dict[str, Any]:
    """Return the inputs of a selection of diverse structures.

    :param inputs: code and seed
    :param quotas: number of structures by pattern of the group name; None for one pool
    :param dataset: structures to keep away from
    """
    content = {**parameters["selection"], "n_select": n_select, "quotas": quotas, "device": "cpu"}
    return {
        "code": inputs["code"],
        "trajectories": dict(trajectories),
        "seed": child_seed(inputs["seed"], key),
        "parameters": orm.Dict(content),
        "metadata": _metadata(key, f"Selection of {n_select} diverse structures", parameters),
        **({"dataset": dataset} if dataset is not None else {}),
    }


def binding_inputs(key: str, inputs: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
    """Return the inputs of the relaxation of binding sites.

    :param inputs: worker_code, structure, gas, model, sites and seed
    """
    section = {name: value for name, value in parameters["binding_sites"].items() if name != "labels"}
    content = {**parameters["evaluation"], **section, "head": model_head(inputs["model"])}
    return {
        "code": inputs["worker_code"],
        **{name: inputs[name] for name in ("structure", "gas", "model", "sites")},
        "seed": child_seed(inputs["seed"], key),
        "parameters": orm.Dict(content),
        "metadata": _metadata(key, f"Binding sites of {inputs['gas']['name']}", parameters),
    }


def blank_model_inputs(
    code: orm.AbstractCode, structure: orm.StructureData, gas: orm.Dict, parameters: Parameters, seed: orm.Int
) -> dict[str, Any]:
    """Return the inputs of a model with random weights, for a framework with elements that no model at hand knows."""
    return {
        "code": code,
        "structure": structure,
        "gas": gas,
        "seed": child_seed(seed, "blank_model"),
        "parameters": orm.Dict({**parameters["blank_model"], "device": "cpu", "dtype": "float32"}),
        "metadata": _metadata("blank_model", "Untrained model", parameters),
    }


def label_inputs(
    key: str, inputs: Mapping[str, Any], parameters: Parameters, structures: Mapping[str, orm.StructureData]
) -> dict[str, Any]:
    """Return the inputs of the labelling of some structures.

    :param inputs: worker_code, cp2k_code (unless the level is one of tblite) and level
    """
    resources = parameters["resources"]
    code = "cp2k_code" if inputs["level"]["program"] == "cp2k" else "worker_code"
    options = cp2k_options(parameters) if code == "cp2k_code" else worker_options(parameters)
    return {
        "structures": dict(structures),
        "level": inputs["level"],
        code: inputs[code],
        "max_concurrent": orm.Int(resources["max_concurrent"]),
        "min_success_fraction": orm.Float(parameters["labels"]["min_success_fraction"]),
        "options": orm.Dict(options),
        "bounds": orm.Dict(quality_bounds(parameters["labels"])),
        "metadata": {"call_link_label": key, "label": f"{len(structures)} labels at {inputs['level']['name']}"},
    }
