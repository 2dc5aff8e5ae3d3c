"""What the work chains are given: nodes made from names and files, and the checks of structure and gas."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from ase import Atoms
from ase.data import atomic_numbers
from ase.io.cif import CIFBlock, parse_cif

from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.protocols import gas_names, load_changes, load_gas
from aiida_mofmace.starter import STARTER_TRAIN, STARTER_VALID
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.gases import mixture
from aiida_mofmace.worker.kernels.geometry import cell_volume, minimum_pair_distance

from .protocols import resolve

__all__ = [
    "code_node",
    "common_inputs",
    "foundation_model",
    "gas_node",
    "lammps_inputs",
    "monte_carlo_inputs",
    "replay_nodes",
    "structure_from_cif",
    "training_inputs",
    "validate_gas",
    "validate_mixture",
    "validate_structure",
    "without_cp2k",
]

#: Å; nearer than any two bonded atoms, so it can only be a mistake or disorder that was not resolved.
_OVERLAP = 0.6
_OCCUPANCY_TOLERANCE = 1e-3
_STARTER_LEVEL = "gfn1-xtb"


def structure_from_cif(path: str | Path) -> orm.StructureData:
    """Return the structure of a CIF, expanded by its symmetry, with plain elements as kinds.

    :param path: file with one structure
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it cannot be read, there is no structure or no cell in it, a site has no place or no known
        element, is partially occupied, or atoms overlap; the message names the file
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give the path of a CIF")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Wrong number")  # of words in a line, whose atom ase would leave out
            blocks = [block for block in parse_cif(str(path)) if block.has_structure()]
        refusal = _refuse_blocks(blocks)
        structure = orm.StructureData() if refusal else _plain_structure(blocks[0].get_atoms())
    except Exception as error:  # ase raises whatever its parser stumbles over
        said = str(error) or type(error).__name__
        refusal = f"cannot be read as a CIF ({said}); is the file complete? Export it anew from a structure viewer"
    if refusal:
        raise ValueError(f"{path.name} {refusal}")
    structure.label = path.stem
    message = validate_structure(structure, None)
    if message:
        raise ValueError(f"{path.name}: {message}")
    return structure


def _refuse_blocks(blocks: Sequence[CIFBlock]) -> str | None:
    """Return what is wrong with the structures of a CIF, None if there is one and nothing is."""
    if len(blocks) != 1:
        return f"holds {len(blocks)} structures; give a CIF with exactly one"
    block = blocks[0]
    absent = [tag for tag in block.cell_tags if tag in block and not _is_number(block[tag])]
    if absent:
        return f"gives no number as {', '.join(absent)}; state the cell"
    if block.get_cell().rank < 3:
        return "has no three-dimensional cell; add _cell_length_* and _cell_angle_*"
    places = zip(*(block.get(f"_atom_site_fract_{axis}") or [] for axis in "xyz"), strict=True)
    lost = sum(not all(map(_is_number, place)) for place in places)
    if lost:
        return f"has {lost} sites without coordinates; place these atoms or delete the lines"
    unknown = sorted({symbol for symbol in block.get_symbols() if not atomic_numbers.get(symbol)})
    if unknown:
        return f"has atoms of no known element: {', '.join(unknown)}; correct _atom_site_type_symbol"
    # A value that is unknown (?) or does not apply (.) is that of a site which is occupied as a matter of course.
    occupancies = [value for value in block.get("_atom_site_occupancy") or [] if value not in ("?", ".")]
    partial = sum(abs(float(value) - 1.0) > _OCCUPANCY_TOLERANCE for value in occupancies)
    return f"has {partial} partially occupied sites; make an ordered model of it first" if partial else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _plain_structure(atoms: Atoms) -> orm.StructureData:
    """Return atoms of a crystal as a node; tags would become kinds of their own."""
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    return orm.StructureData(ase=plain)


def gas_node(gas: str | Mapping[str, float] | orm.Dict) -> orm.Dict:
    """Return the description of a gas by name, or of a mixture by mole fractions; a node is returned as it is.

    :raises ValueError: if a gas is unknown
    """
    if isinstance(gas, orm.Dict):
        return gas
    if isinstance(gas, str):
        return orm.Dict(load_gas(gas))
    components = [{**load_gas(name), "mole_fraction": fraction} for name, fraction in gas.items()]
    return orm.Dict({"name": "+".join(gas), "components": components})


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
    unknown = sorted(set(codes) - {"worker", "cp2k", "raspa", "lammps"})
    if unknown:
        raise ValueError(f"unknown keys of codes: {', '.join(unknown)}; known are worker, cp2k, raspa and lammps")
    code = codes.get(key)
    if isinstance(code, str):
        return orm.load_code(code)
    return code


def without_cp2k(protocol: str | None, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return overrides for a run without CP2K: tblite makes the labels where the protocol's are GFN1-xTB.

    :param protocol: name of a protocol, None for the default
    :param overrides: of the run, which go over these changes; those that state a level are returned as they are
    :raises ValueError: if the protocol is unknown
    """
    own = dict(overrides or {})
    if "level" in own or resolve(protocol)["level"] != _STARTER_LEVEL:
        return own
    changes = load_changes("without_cp2k")
    if isinstance(own.get("fine_tune"), Mapping):
        own["fine_tune"] = {**changes["fine_tune"], **own["fine_tune"]}
    return {**changes, **own}


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


def monte_carlo_inputs(codes: Mapping[str, Any], charges: orm.List | Sequence[float] | None) -> dict[str, Any]:
    """Return charges and RASPA for Monte Carlo with UFF; neither where there are no charges.

    :param charges: of the framework's atoms in e
    """
    if charges is None:
        return {}
    node = charges if isinstance(charges, orm.List) else orm.List(list(charges))
    return {"raspa_code": code_node(codes, "raspa"), "charges": node}


def lammps_inputs(codes: Mapping[str, Any], model: orm.SinglefileData | str | Path | None) -> dict[str, Any]:
    """Return a LAMMPS of one's own and the model as it reads it; nothing of what is not given.

    :param model: converted: a node or the path of the file
    """
    if isinstance(model, (str, Path)):
        model = orm.SinglefileData(Path(model).resolve())
    found = {"lammps_code": code_node(codes, "lammps"), "lammps_model": model}
    return {name: node for name, node in found.items() if node is not None}


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
    if cell_volume(np.asarray(structure.cell, dtype=float)) < 1.0:
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
    """Refuse a gas whose description is not complete or cannot be right, and a mixture."""
    if gas is not None and "components" in gas.get_dict():
        return "mixtures are for isotherms alone; give one gas here"
    return validate_mixture(gas, _)


def validate_mixture(gas: orm.Dict | None, _: Any) -> str | None:
    """Refuse a gas or a mixture whose description is not complete or cannot be right."""
    if gas is None:
        return None
    try:
        mixture(gas.get_dict())
    except (WorkerError, ValueError, TypeError) as error:
        return f"{error}; take one of the known gases by name: {', '.join(gas_names())}"
    return None
