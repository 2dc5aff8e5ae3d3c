"""What the work chains are given: nodes made from names and files, and checks that say what to do.

The validators return a message and never raise; they are set on the ports, so a builder refuses bad input when it is
filled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from ase import Atoms
from ase.io.cif import parse_cif

from aiida_mofmace.calculations.validators import check_elements, check_window, first_message, gas_elements
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.protocols import gas_names, load_gas
from aiida_mofmace.starter import STARTER_TRAIN, STARTER_VALID
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import minimum_pair_distance
from aiida_mofmace.worker.kernels.loading import place_molecules

__all__ = [
    "check_code_for_level",
    "check_dataset_level",
    "check_loadings",
    "check_model",
    "check_parameters",
    "check_pressures",
    "check_replay",
    "code_node",
    "common_inputs",
    "foundation_model",
    "gas_node",
    "replay_nodes",
    "structure_from_cif",
    "training_inputs",
    "validate_gas",
    "validate_parameters",
    "validate_structure",
]

#: Å; nearer than any two bonded atoms, so it can only be a mistake or disorder that was not resolved.
_OVERLAP = 0.6
_OCCUPANCY_TOLERANCE = 1e-3
_STARTER_LEVEL = "gfn1-xtb"


def structure_from_cif(path: str | Path) -> orm.StructureData:
    """Return the structure of a CIF, expanded by its symmetry, with plain elements as kinds.

    :param path: file with one structure
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if there is no structure or no cell in it, a site is partially occupied, or atoms overlap
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give the path of a CIF")
    blocks = [block for block in parse_cif(str(path)) if block.has_structure()]
    if len(blocks) != 1:
        raise ValueError(f"{path.name} holds {len(blocks)} structures; give a CIF with exactly one")
    block = blocks[0]
    if block.get_cell().rank < 3:
        raise ValueError(f"{path.name} has no three-dimensional cell; add _cell_length_* and _cell_angle_*")
    occupancies = [float(str(value).split("(")[0]) for value in block.get("_atom_site_occupancy") or []]
    partial = sum(abs(value - 1.0) > _OCCUPANCY_TOLERANCE for value in occupancies)
    if partial:
        raise ValueError(f"{path.name} has {partial} partially occupied sites; make an ordered model of it first")
    atoms = block.get_atoms()
    atoms.pbc = True
    structure = _plain_structure(atoms)
    structure.label = path.stem
    message = validate_structure(structure, None)
    if message:
        raise ValueError(f"{path.name}: {message}")
    return structure


def _plain_structure(atoms: Atoms) -> orm.StructureData:
    """Return atoms as a node; tags would become kinds of their own."""
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    return orm.StructureData(ase=plain)


def gas_node(gas: str | orm.Dict) -> orm.Dict:
    """Return the description of a gas by name; a node is returned as it is.

    :raises ValueError: if the gas is unknown
    """
    return gas if isinstance(gas, orm.Dict) else orm.Dict(load_gas(gas))


def foundation_model(model: MaceModelData | str | Path | None, parameters: Mapping[str, Any]) -> MaceModelData:
    """Return a model: a node as it is, a file or a name turned into one, the protocol's own for None.

    :raises ValueError: if the name is unknown
    """
    if isinstance(model, MaceModelData):
        return model
    name = str(model or parameters["foundation"])
    if name == "starter":
        return MaceModelData.starter()
    return MaceModelData.from_file(name) if Path(name).is_file() else MaceModelData.foundation(name)


def replay_nodes() -> tuple[LabelledDatasetData, LabelledDatasetData]:
    """Return the training and validation set of the starter model, at whose level of theory they are labelled."""
    level = LevelOfTheory.load(_STARTER_LEVEL).summary
    return LabelledDatasetData.from_file(STARTER_TRAIN, level), LabelledDatasetData.from_file(STARTER_VALID, level)


def code_node(codes: Mapping[str, Any], key: str) -> orm.AbstractCode | None:
    """Return a code by its key: a node, or the label of one.

    :raises ValueError: if there are keys that no work chain knows
    """
    unknown = sorted(set(codes) - {"worker", "cp2k"})
    if unknown:
        raise ValueError(f"unknown keys of codes: {', '.join(unknown)}; known are worker and cp2k")
    code = codes.get(key)
    if isinstance(code, str):
        return orm.load_code(code)
    return code


def common_inputs(
    codes: Mapping[str, Any],
    structure: orm.StructureData,
    gas: str | orm.Dict,
    parameters: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Return the inputs of a work chain that simulates and labels: codes, system, level of theory, seed, parameters.

    :param parameters: resolved protocol
    :raises ValueError: if the gas or the level of theory is unknown
    """
    return {
        "worker_code": code_node(codes, "worker"),
        "cp2k_code": code_node(codes, "cp2k"),
        "structure": structure,
        "gas": gas_node(gas),
        "level": orm.Dict(LevelOfTheory.from_protocol(parameters).to_dict()),
        "seed": orm.Int(seed),
        "parameters": orm.Dict(dict(parameters)),
    }


def training_inputs(
    model: MaceModelData | str | Path | None,
    replay: tuple[orm.SinglefileData, orm.SinglefileData | None] | None,
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Return foundation model and replay data, those of the starter model where none are given.

    :param replay: structures to train and to validate on alongside
    """
    if replay is None and parameters["fine_tune"]["multihead"]:
        replay = replay_nodes()
    train, valid = replay or (None, None)
    return {"foundation": foundation_model(model, parameters), "replay_train": train, "replay_valid": valid}


def validate_structure(structure: orm.StructureData | None, _: Any) -> str | None:
    """Refuse a structure without a periodic cell, with tagged or disordered kinds, or with overlapping atoms."""
    return None if structure is None else _refuse_cell(structure) or _refuse_atoms(structure)


def _refuse_cell(structure: orm.StructureData) -> str | None:
    if abs(float(np.linalg.det(np.asarray(structure.cell, dtype=float)))) < 1.0:
        return "the structure has no cell with a volume; give the three lattice vectors in Å"
    if not all(structure.pbc):
        return "the structure is not periodic in x, y and z; set pbc to True in all three directions"
    return None


def _refuse_atoms(structure: orm.StructureData) -> str | None:
    odd = [kind.name for kind in structure.kinds if kind.is_alloy or kind.has_vacancies]
    if odd:
        return f"kinds {', '.join(odd)} are partially occupied; make an ordered model of the structure first"
    tagged = [kind.name for kind in structure.kinds if kind.name != kind.symbol]
    if tagged:
        return f"kinds {', '.join(tagged)} are no plain elements; set all ASE tags to zero"
    positions = np.array([site.position for site in structure.sites], dtype=float)
    distance = minimum_pair_distance(positions, np.asarray(structure.cell, dtype=float))
    if distance < _OVERLAP:
        return f"two atoms overlap: they are {distance:.2f} Å apart; remove one of them"
    return None


def validate_gas(gas: orm.Dict | None, _: Any) -> str | None:
    """Refuse a gas whose description is not complete or cannot be right."""
    if gas is None:
        return None
    try:
        Gas.from_dict(gas.get_dict())
    except (WorkerError, ValueError, TypeError) as error:
        return f"{error}; take one of the known gases by name: {', '.join(gas_names())}"
    return None


def validate_parameters(parameters: orm.Dict | None, _: Any) -> str | None:
    """Refuse parameters with values that make no sense, wherever they stand."""
    return None if parameters is None else check_parameters(parameters.get_dict())


def check_parameters(parameters: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return what is wrong with the values of a protocol, or None; the same key means the same everywhere."""
    for key, value in parameters.items():
        if key in ("options", "worker_options", "cp2k_options"):
            continue
        if key == "e0s":
            message = _check_atomic_energies(value)
            message = f"{prefix}{message}" if message else None
        elif isinstance(value, Mapping):
            message = check_parameters(value, f"{prefix}{key}.")
        else:
            message = _check_value(key, value)
            message = f"{prefix}{message}" if message else None
        if message:
            return message
    return None


_POSITIVE = {
    "temperature": "K",
    "temperatures": "K",
    "pressures": "Pa",
    "timestep_fs": "fs",
    "thermostat_time_fs": "fs",
    "error_target": "mol/kg",
    "gas_phase_box": "Å",
    "isolated_atom_box": "Å",
    "insertion_minimum_distance": "Å",
    "learning_rate": "",
    "max_force": "eV/Å",
    "max_energy_deviation": "eV/atom",
}
_WHOLE = {
    "loadings": 0,
    "initial_loading": 0,
    "equilibration_steps": 0,
    "max_rounds": 0,
    "n_empty": 0,
    "n_per_loading": 0,
    "steps": 1,
    "stride": 1,
    "chunk_steps": 1,
    "max_steps": 1,
    "min_steps": 1,
    "n_select": 1,
    "n_frames": 1,
    "n_molecules": 1,
    "batch_size": 1,
    "max_epochs": 1,
    "min_exchanges": 0,
    "max_concurrent": 1,
    "cores": 1,
    "max_wallclock_seconds": 1,
    "md_steps_per_attempt": 1,
    "attempts_per_block": 1,
    "committee_size": 2,
}
_MAY_BE_EMPTY = ("pressures", "loadings")


def _check_atomic_energies(value: Any) -> str | None:
    ways = ("foundation", "estimated", "isolated_atoms")
    if value in ways or isinstance(value, Mapping):
        return None
    return f"e0s is {value!r}; give one of {', '.join(ways)}, or energies in eV by element"


def _check_value(key: str, value: Any) -> str | None:
    values = value if isinstance(value, (list, tuple)) else [value]
    if key == "window":
        return check_window(value)
    if isinstance(value, (list, tuple)) and not value and key not in _MAY_BE_EMPTY:
        return f"{key} is empty; give at least one"
    if key in _POSITIVE:
        unit = f" in {_POSITIVE[key]}" if _POSITIVE[key] else ""
        return first_message(_refuse(key, item, _is_number(item) and item > 0, f"above 0{unit}") for item in values)
    if key in _WHOLE:
        least = _WHOLE[key]
        rule = f"that is whole and at least {least}"
        return first_message(_refuse(key, item, _is_whole(item) and item >= least, rule) for item in values)
    if key.endswith("_fraction"):
        return _refuse(key, value, _is_number(value) and 0 <= value <= 1, "from 0 to 1")
    return None


def _refuse(key: str, value: Any, holds: bool, rule: str) -> str | None:
    return None if holds else f"{key} is {value!r}; give a number {rule}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_pressures(pressures: list[Any]) -> str | None:
    """Refuse pressures that are not positive, and none at all."""
    return _check_value("pressures", pressures) if pressures else "pressures is empty; give at least one in Pa"


def check_model(model: MaceModelData, structure: orm.StructureData, gas: orm.Dict | None) -> str | None:
    """Refuse a model that does not know an element of the framework or of the gas."""
    return check_elements([*structure.get_symbols_set(), *gas_elements(gas)], [model], "structure and gas")


def check_loadings(
    structure: orm.StructureData, gas: orm.Dict, loadings: Iterable[int], distance: float, seed: int
) -> str | None:
    """Refuse a loading that does not fit into the pores; the message says what does.

    :param loadings: numbers of molecules per cell
    :param distance: smallest distance in Å between a molecule put into a pore and everything else
    :param seed: of the trial insertions
    """
    largest = max(loadings, default=0)
    atoms = structure.get_ase()
    try:
        place_molecules(atoms, Gas.from_dict(gas.get_dict()), largest, distance, np.random.default_rng(seed))
    except WorkerError as error:
        return f"loading {largest}: {error}"
    return None


def check_dataset_level(dataset: LabelledDatasetData | None, level: LevelOfTheory, what: str = "dataset") -> str | None:
    """Refuse labelled data of another level of theory than the labels to come."""
    if not isinstance(dataset, LabelledDatasetData) or dataset.level_of_theory["hash"] == level.hash:
        return None
    theirs = dataset.level_of_theory
    return (
        f"the {what} is labelled at {theirs['name']} ({theirs['hash']}), this run at {level.name} ({level.hash}); "
        "two levels of theory cannot be mixed: take the same level, or label the structures again"
    )


def check_replay(replay: orm.SinglefileData | None, level: LevelOfTheory, fine_tune: Mapping[str, Any]) -> str | None:
    """Refuse replay data of another level, unless the foundation model labels them anew; and their absence."""
    if not fine_tune["multihead"]:
        return None
    if replay is None:
        return "multihead replay needs replay data: give replay_train, or set fine_tune.multihead to false"
    if fine_tune["pseudolabel_replay"] or not isinstance(replay, LabelledDatasetData):
        return None
    message = check_dataset_level(replay, level, "replay set")
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
