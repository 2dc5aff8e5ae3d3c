"""Checks of whether the inputs of a work chain fit together.

A check returns a message that says what to do, or None, and never raises; the validators of the ports call it, so a
builder refuses bad input when it is filled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any

import numpy as np
from aiida import orm

from aiida_mofmace.calculations.lammps_script import LAUNCHER
from aiida_mofmace.calculations.validators import (
    check_code,
    check_elements,
    check_lammps_gas,
    check_replay_files,
    check_training_size,
    first_message,
    gas_elements,
)
from aiida_mofmace.data.charged_cif import NEUTRAL
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.gases import mixture
from aiida_mofmace.worker.kernels.loading import largest_loading

from .parameter_checks import check_value
from .parameter_types import is_number

__all__ = [
    "check_charges",
    "check_code_for_level",
    "check_exchange",
    "check_force_field",
    "check_lammps",
    "check_lammps_of_run",
    "check_launcher",
    "check_learning",
    "check_loadings",
    "check_model",
    "check_monte_carlo",
    "check_one_cell",
    "check_pressures",
    "check_repeats",
    "check_rigid_gas",
    "validate_isotherm",
]


_UFF_PACKAGES = ("aiida_lsmo", "pyzeo")
_FILLINGS = 5  # of the pores, on trial


def check_pressures(pressures: list[Any]) -> str | None:
    """Refuse pressures that are not positive, and none at all."""
    return check_value("pressures", pressures) if pressures else "pressures is empty; give at least one in Pa"


def check_model(model: MaceModelData, structure: orm.StructureData, gas: orm.Dict | None) -> str | None:
    """Refuse a model that does not know an element of the framework or of the gas."""
    return check_elements([*structure.get_symbols_set(), *gas_elements(gas)], [model], "structure and gas")


def check_monte_carlo(inputs: Mapping[str, Any]) -> str | None:
    """Refuse Monte Carlo with UFF without RASPA or its packages, or with charges of another framework."""
    if "charges" not in inputs:
        return None if "raspa_code" not in inputs else "RASPA needs the charges of the framework's atoms; give charges"
    missing = [name for name in _UFF_PACKAGES if find_spec(name) is None]
    if "raspa_code" not in inputs or missing:
        what = f"{', '.join(missing)} in the environment of AiiDA" if missing else "RASPA2 as codes['raspa']"
        return f"charges ask for Monte Carlo with UFF, which needs {what}: install the extra `uff`, or give no charges"
    return check_charges(inputs["structure"], inputs["charges"]) or check_force_field(inputs["gas"])


def check_one_cell(inputs: Mapping[str, Any]) -> str | None:
    """Refuse configurations of two sizes, which one level of theory sees with different images and k-points."""
    parameters = inputs["parameters"]
    if math.prod(parameters["sampling"]["supercell"]) == 1:
        return None
    others = {
        "aimd.loadings": bool(parameters["aimd"]["loadings"]),
        "snapshots of UFF (uff_gcmc.snapshots)": "charges" in inputs and parameters["uff_gcmc"]["snapshots"] > 0,
    }
    found = " and ".join(name for name, is_there in others.items() if is_there)
    if not found:
        return None
    return (
        f"sampling.supercell is for MD alone, and {found} would stay in the single cell: "
        "give the supercell as the structure, or leave one of them out"
    )


def check_lammps(inputs: Mapping[str, Any]) -> str | None:
    """Refuse a LAMMPS of one's own that sampling has no use of, cannot drive, or that has no model to read."""
    if "lammps_code" not in inputs:
        return "lammps_model is for a LAMMPS of your own; give codes['lammps']" if "lammps_model" in inputs else None
    code = inputs["lammps_code"]
    refusals = {
        "codes['lammps'] is given, but sampling.engine is not lammps; set it, or give no such code": (
            inputs["parameters"]["sampling"]["engine"] != "lammps"
        ),
        f"code {code.label} reads a converted model: give lammps_model, the file made for its pair_style": (
            "lammps_model" not in inputs and not _is_launcher(code)
        ),
    }
    return next((message for message, is_so in refusals.items() if is_so), None) or _check_lammps_code(code)


def check_exchange(inputs: Mapping[str, Any]) -> str | None:
    """Refuse a LAMMPS of one's own that MD-GCMC has no use of, or whose ``fix gcmc`` has nobody to put it right."""
    parameters = inputs["parameters"]
    message = check_lammps_gas(parameters["gcmc"], inputs["gas"])
    if message or "lammps_code" not in inputs:
        return message
    code = inputs["lammps_code"]
    refusals = {
        "codes['lammps'] is given, but gcmc.engine is not lammps; set it, or give no such code": (
            parameters["gcmc"]["engine"] != "lammps"
        ),
        "isotherm.batch puts the pressures into one job of the worker; set it to false for codes['lammps']": (
            parameters["isotherm"]["batch"]
        ),
    }
    return next((message for message, is_so in refusals.items() if is_so), None) or check_launcher(code)


def check_rigid_gas(gcmc: Mapping[str, Any], gas: orm.Dict) -> str | None:
    """Refuse molecules that are held and that nothing moves."""
    if gcmc["gas_flexible"]:
        return None
    longest = max(len(molecule) for molecule, _ in mixture(gas.get_dict()))
    needed = ["translation", *(["rotation"] if longest > 1 else [])]
    missing = [move for move in needed if not gcmc["moves"].get(move)]
    if not missing:
        return None
    return (
        "rigid molecules (gcmc.gas_flexible: false) move by Monte Carlo alone; give "
        + " and ".join(f"gcmc.moves.{move}" for move in missing)
        + " a frequency above 0"
    )


def check_launcher(code: orm.AbstractCode) -> str | None:
    """Refuse a LAMMPS whose ``fix gcmc`` nobody puts right, or that AiiDA cannot drive."""
    if _is_launcher(code):
        return _check_lammps_code(code)
    return (
        f"code {code.label} is not {LAUNCHER}: fix gcmc with MACE alone gives wrong loadings (docs: LAMMPS); "
        f"give {LAUNCHER}, which runs in any LAMMPS that Python can load, or no such code"
    )


def check_lammps_of_run(inputs: Mapping[str, Any]) -> str | None:
    """Refuse a LAMMPS of one's own that neither sampling nor isotherm ask for, or that one of them cannot use."""
    if "lammps_code" not in inputs:
        return check_lammps(inputs)
    parameters = inputs["parameters"]
    checks = {"sampling": check_lammps, "gcmc": check_exchange}
    asked = [check for section, check in checks.items() if parameters[section]["engine"] == "lammps"]
    if "lammps_model" in inputs and check_lammps not in asked:
        return "lammps_model is for sampling by a LAMMPS of your own; set sampling.engine to lammps, or give none"
    if not asked:
        return "codes['lammps'] is given, but neither sampling.engine nor gcmc.engine is lammps; set one of them"
    return first_message([check(inputs) for check in asked])


def _is_launcher(code: orm.AbstractCode) -> bool:
    return PurePath(str(code.get_executable())).name == LAUNCHER


def _check_lammps_code(code: orm.AbstractCode) -> str | None:
    if find_spec("aiida_lammps") is None:
        return "codes['lammps'] needs aiida-lammps in the environment of AiiDA: install the extra `lammps`"
    return check_code(code, "lammps.raw")


def validate_isotherm(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what LAMMPS cannot do, elements that the model does not know, loadings that do not fit into the pores."""
    if not {"structure", "gas", "model", "parameters", "seed"} <= set(inputs):
        return None
    structure, gas = inputs["structure"], inputs["gas"]
    parameters = inputs["parameters"].get_dict()
    loadings = [parameters["heat_of_adsorption"]["n_molecules"], parameters["isotherm"]["initial_loading"]]
    distance = max(parameters["md"]["insertion_minimum_distance"], parameters["gcmc"]["minimum_distance"])
    return first_message(
        [
            check_exchange(inputs),
            check_rigid_gas(parameters["gcmc"], gas),
            check_model(inputs["model"], structure, gas),
            check_loadings(structure, gas, loadings, distance, inputs["seed"].value),
        ]
    )


def check_force_field(gas: orm.Dict) -> str | None:
    """Refuse a gas that aiida-lsmo has no force field of."""
    from .uff_isotherm_base import molecule_settings  # needs the extra `uff`

    try:
        molecule_settings(gas["name"])
    except ValueError as error:
        return str(error)
    return None


def check_charges(structure: orm.StructureData, charges: orm.List) -> str | None:
    """Refuse charges of another framework, those that are no numbers, and a framework that is not neutral."""
    values = charges.get_list()
    if len(values) != len(structure.sites):
        return (
            f"{len(values)} charges do not fit {len(structure.sites)} atoms; give one for each atom, "
            "in the structure's order"
        )
    if not all(is_number(value) for value in values):
        return "a charge of the framework is no number"
    if abs(math.fsum(values)) > NEUTRAL:
        return f"the charges add up to {math.fsum(values):.3f} e; a framework must be neutral"
    return None


def check_repeats(repeats: Any) -> str | None:
    """Refuse what is no number of cells along each lattice vector."""
    if isinstance(repeats, list) and len(repeats) == 3 and all(isinstance(n, int) and n > 0 for n in repeats):
        return None
    return f"supercell is {repeats!r}; give three positive integers, the cells along each lattice vector"


def check_loadings(
    structure: orm.StructureData,
    gas: orm.Dict,
    loadings: Iterable[int],
    distance: float,
    seed: int,
    *,
    repeats: Sequence[int] = (1, 1, 1),
) -> str | None:
    """Refuse a loading that does not fit into the pores; the message says what does.

    The jobs draw other random numbers than this check: so it has to fit twice in a few trials, and a job has more.

    :param loadings: numbers of molecules per cell
    :param distance: smallest distance in Å between a molecule put into a pore and everything else
    :param seed: of the trial insertions
    :param repeats: number of cells along each lattice vector, all to be loaded
    """
    loading, cells = max(loadings, default=0), math.prod(repeats)
    atoms, molecule = structure.get_ase().repeat(tuple(repeats)), mixture(gas.get_dict())[0][0]
    rng, counts = np.random.default_rng(seed), list[int]()
    while counts.count(loading * cells) < 2 and len(counts) < _FILLINGS:
        try:
            counts.append(largest_loading(atoms, molecule, distance, rng, limit=loading * cells))
        except WorkerError as error:
            return f"loading {loading}: {error}"
    most = sorted(counts)[-2] // cells
    if most >= loading:
        return None
    return (
        f"loading {loading}: {loading} {molecule.name} do not fit into the pores of a cell with {distance} Å between "
        f"atoms; the most that did fit is {most}: lower the loading or insertion_minimum_distance"
    )


def _check_dataset_level(
    dataset: LabelledDatasetData | None, level: LevelOfTheory, what: str = "dataset"
) -> str | None:
    """Refuse labelled data of another level of theory than the labels to come."""
    if not isinstance(dataset, LabelledDatasetData) or dataset.level_of_theory["hash"] == level.hash:
        return None
    theirs = dataset.level_of_theory
    return (
        f"the {what} is labelled at {theirs['name']} ({theirs['hash']}), this run at {level.name} ({level.hash}); "
        "two levels of theory cannot be mixed: take the same level, or label the structures again"
    )


def _check_replay(replay: orm.SinglefileData | None, level: LevelOfTheory, fine_tune: Mapping[str, Any]) -> str | None:
    """Refuse replay data of another level, unless the foundation model labels them anew; and their absence."""
    if not fine_tune["multihead"]:
        return None
    if replay is None:
        return "multihead replay needs replay data: give replay_train, or set fine_tune.multihead to false"
    if fine_tune["pseudolabel_replay"] or not isinstance(replay, LabelledDatasetData):
        return None
    message = _check_dataset_level(replay, level, "replay set")
    return None if message is None else f"{message}; or set fine_tune.pseudolabel_replay to true"


def check_code_for_level(
    level: LevelOfTheory, cp2k_code: orm.AbstractCode | None, fine_tune: Mapping[str, Any] | None = None
) -> str | None:
    """Refuse a level of theory that is computed by CP2K where no CP2K is given, and isolated atoms at any other.

    :param fine_tune: this section of the parameters, where something is trained
    """
    if level.program != "cp2k" and (fine_tune or {}).get("e0s") == "isolated_atoms":
        return f"isolated atoms are labelled with CP2K; at {level.name} set fine_tune.e0s to estimated"
    if level.program != "cp2k" or cp2k_code is not None:
        return None
    return (
        f"level of theory {level.name} is computed by CP2K: give codes['cp2k'], "
        "or override level with gfn1-xtb-tblite (with fine_tune.pseudolabel_replay true and fine_tune.e0s estimated)"
    )


def check_learning(
    inputs: Mapping[str, Any], parameters: Mapping[str, Any], level: LevelOfTheory, n_frames: int
) -> str | None:
    """Refuse what no committee can be trained on: two levels of theory, too few labels, no way to make more.

    :param inputs: of a work chain that labels and trains
    :param n_frames: number of labels of the first training
    """
    fine_tune = parameters["fine_tune"]
    return first_message(
        [
            check_code_for_level(level, inputs.get("cp2k_code"), fine_tune),
            _check_dataset_level(inputs.get("dataset"), level),
            check_training_size(n_frames, fine_tune),
            _check_replay(inputs.get("replay_train"), level, fine_tune),
            check_replay_files(inputs.get("replay_train"), inputs.get("replay_valid")),
            _check_calibration(inputs, parameters),
        ]
    )


def _check_calibration(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> str | None:
    """Refuse to calibrate a committee on nothing: without test frames, or one that comes without its calibration."""
    if not parameters["active_learning"]["calibrate_deviation"]:
        return None
    if not parameters["fine_tune"]["test_fraction"]:
        return "active_learning.calibrate_deviation needs labels that no member has seen: raise fine_tune.test_fraction"
    if inputs.get("models") and inputs.get("calibration") is None:
        return "active_learning.calibrate_deviation: give the calibration of the models as well, or no models"
    return None
