"""Calculation functions: small steps between jobs whose results must stand in the provenance graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms
from numpy.typing import NDArray

from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.rattling import rattled_frames
from aiida_mofmace.worker.kernels.uncertainty import calibrate

from .label_quality import names_left_out
from .ports import given

__all__ = [
    "add_round",
    "append_labels",
    "calibrate_committee",
    "compare_with_labels",
    "draw_frames",
    "gather_failures",
    "join_candidates",
    "join_trajectories",
    "make_supercell",
    "rattle",
    "rattle_gas",
    "training_errors",
    "with_labels",
]

_REPLAY_HEAD = "pt_head"


@calcfunction
def append_labels(selection: orm.Dict, **nodes: Any) -> LabelledDatasetData:
    """Return a dataset with the labels of one round behind those of the dataset before.

    :param selection: its list ``selected`` says group, loading and framework_atoms of frame_0000 and so on
    :param nodes: ``structures`` and ``labels`` by name, a label for some or all structures; perhaps ``previous``, and
        ``flagged``, which says what labels are to be left out
    """
    frames = selection.get_dict()["selected"]
    names = sorted(set(nodes["labels"]) - names_left_out(nodes.get("flagged")))
    pairs = [(nodes["structures"][name], nodes["labels"][name]) for name in names]
    infos = [
        {key: frames[int(name.rpartition("_")[2])][key] for key in ("group", "loading", "framework_atoms")}
        for name in names
    ]
    return LabelledDatasetData.from_labels(pairs, previous=nodes.get("previous"), infos=infos)


def with_labels(
    previous: LabelledDatasetData | None, selection: orm.Dict, structures: Mapping[str, orm.StructureData], outputs: Any
) -> LabelledDatasetData | None:
    """Return a dataset with the labels of a round behind it, also of a round with too few; as it is without any.

    :param selection: as of :func:`append_labels`
    :param outputs: of what made the labels: perhaps ``labels`` and ``flagged``
    """
    flagged = given(outputs, "flagged")
    labels = dict(outputs["labels"]) if "labels" in outputs else {}
    if not set(labels) - names_left_out(flagged.get("flagged")):
        return previous
    earlier = {} if previous is None else {"previous": previous}
    dataset: LabelledDatasetData = append_labels(selection, structures=structures, labels=labels, **flagged, **earlier)
    return dataset


@calcfunction
def join_trajectories(**parts: FramesData) -> FramesData:
    """Return the frames of consecutive jobs of one run; a step that two of them hold is taken once.

    :param parts: in alphabetical order of their names
    """
    frames = Frames.concatenate(parts[name].get_frames() for name in sorted(parts))
    _, first = np.unique(frames.steps, return_index=True)
    return FramesData.from_frames(frames.select(first))


@calcfunction
def join_candidates(**parts: FramesData) -> FramesData:
    """Return the frames that tripped a guard in consecutive jobs of one run; several may be of the same step.

    :param parts: in alphabetical order of their names
    """
    return FramesData.from_frames(Frames.concatenate(parts[name].get_frames() for name in sorted(parts)))


@calcfunction
def rattle(structure: orm.StructureData, gas: orm.Dict, seed: orm.Int, parameters: orm.Dict) -> FramesData:
    """Return configurations made without any potential.

    :param parameters: loading (of the whole structure), frames, amplitude, insertion_distance and minimum_distance (Å),
        group
    """
    return _rattled(structure.get_ase(), gas, seed, parameters)


@calcfunction
def rattle_gas(gas: orm.Dict, seed: orm.Int, parameters: orm.Dict) -> FramesData:
    """Return configurations of a lone molecule made without any potential; see :func:`rattle`.

    :param parameters: the same, and gas_phase_box, the edge of its periodic cube in Å
    """
    return _rattled(Atoms(cell=[parameters["gas_phase_box"]] * 3, pbc=True), gas, seed, parameters)


def _rattled(framework: Atoms, gas: orm.Dict, seed: orm.Int, parameters: orm.Dict) -> FramesData:
    given = parameters.get_dict()
    images = rattled_frames(
        framework,
        Gas.from_dict(gas.get_dict()),
        given["loading"],
        given["frames"],
        amplitude=given["amplitude"],
        insertion_distance=given["insertion_distance"],
        minimum_distance=given["minimum_distance"],
        rng=np.random.default_rng(seed.value),
    )
    for image in images:
        image.info["group"] = given["group"]
    return FramesData.from_frames(Frames.from_atoms(images))


@calcfunction
def make_supercell(structure: orm.StructureData, repeats: orm.List) -> orm.StructureData:
    """Return a supercell.

    :param repeats: number of cells along each lattice vector
    """
    supercell = orm.StructureData(ase=structure.get_ase().repeat(tuple(repeats.get_list())))
    supercell.label = f"{structure.label} {'x'.join(map(str, repeats.get_list()))}".strip()
    return supercell


@calcfunction
def draw_frames(seed: orm.Int, count: orm.Int, **trajectories: FramesData) -> dict[str, Any]:
    """Draw frames at random, without repetition, the same number from each trajectory.

    :param seed: of the draw
    :param count: frames of each trajectory; all of them where there are fewer
    :return: ``structures`` frame_0000 and so on, and ``selection`` with their group, loading and framework_atoms
    """
    generator = np.random.default_rng(seed.value)
    structures: dict[str, orm.StructureData] = {}
    selected: list[dict[str, Any]] = []
    for name in sorted(trajectories):
        frames = trajectories[name].get_frames()
        chosen = generator.permutation(len(frames))[: count.value]
        for index in sorted(int(i) for i in chosen):
            atoms = frames.atoms(index)
            structures[f"frame_{len(selected):04d}"] = orm.StructureData(ase=atoms)
            info = {key: atoms.info[key] for key in ("group", "loading", "framework_atoms")}
            selected.append({"trajectory": name, "index": index, **info})
    return {"structures": structures, "selection": orm.Dict({"selected": selected})}


@calcfunction
def add_round(number: orm.Int, dataset: LabelledDatasetData, **nodes: Any) -> orm.Dict:
    """Return the learning curve with one more round.

    :param number: 0 for the committee trained on the first dataset, then 1 and so on
    :param dataset: what the committee of this round was trained on
    :param nodes: ``training``, the results of the members by name; perhaps ``calibration`` of the committee they make;
        ``curve``, the rounds before; ``exploration``, the results of the committee that chose the labels of this round;
        ``failures`` of these labels
    """
    rounds = nodes["curve"].get_dict()["rounds"] if "curve" in nodes else []
    exploration = nodes["exploration"].get_dict() if "exploration" in nodes else {}
    quantiles = exploration.get("sigma_max_quantiles") or {}
    members = [results.get_dict() for results in nodes.get("training", {}).values()]
    row = {
        "round": number.value,
        "n_labels": dataset.n_frames,
        "n_failed": len(nodes["failures"].get_dict()) if "failures" in nodes else 0,
        "n_frames": exploration.get("n_frames"),
        "candidates": exploration.get("inside"),
        "below": exploration.get("below"),
        "inside": exploration.get("inside"),
        "above": exploration.get("above"),
        "sigma_max_mean": exploration.get("sigma_max_mean"),
        "sigma_max_q99": quantiles.get("0.99"),
        "deviation_scale": exploration.get("deviation_scale"),
        "calibration": nodes["calibration"].get_dict() if "calibration" in nodes else None,
        **training_errors(members),
    }
    return orm.Dict({"rounds": [*rounds, row]})


def training_errors(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Return errors of the fine-tuned head, averaged over the members, on test frames where there are any.

    :param members: results of fine-tuning jobs
    :return: subset, n_train, force_mae_mev_per_ang, energy_mae_mev_per_atom; None where nothing is known
    """
    tables = [_errors_of_fine_tuned_head(results) for results in members]
    keys = ("force_mae_mev_per_ang", "energy_mae_mev_per_atom")
    subset = next((name for name in ("test", "valid") if tables and all(table.get(name) for table in tables)), None)
    n_train = _mean([table.get("train") or {} for table in tables], "n_frames")
    row: dict[str, Any] = {"subset": subset, "members": len(members), "n_train": n_train}
    for key in keys:
        row[key] = _mean([table[subset] for table in tables], key) if subset else None
    return row


def _errors_of_fine_tuned_head(results: Mapping[str, Any]) -> dict[str, Any]:
    errors = results.get("errors") or {}
    heads = [head for head in errors if head != _REPLAY_HEAD] or list(errors)
    return dict(errors[heads[0]]) if heads else {}


def _mean(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [float(row[key]) for row in rows if row.get(key) is not None]
    return sum(values) / len(values) if values else None


@calcfunction
def calibrate_committee(**predictions: orm.ArrayData) -> orm.Dict:
    """Return how far the force deviation of a committee tells its error on test frames, which no member has seen.

    :param predictions: of each member on the same frames, with references
    :return: n_models, n_frames, and ratio, correlation, slope and miscalibration of
        :class:`~aiida_mofmace.worker.kernels.uncertainty.Calibration`
    :raises ValueError: if the members were tested on different frames
    """
    members = [predictions[name] for name in sorted(predictions)]
    reference = members[0].get_array("reference_forces")
    if not all(np.array_equal(reference, member.get_array("reference_forces")) for member in members):
        raise ValueError("the members were tested on different frames")
    forces = np.stack([member.get_array("forces") for member in members])
    n_frames = len(members[0].get_array("reference_energies"))
    return orm.Dict({"n_models": len(members), "n_frames": n_frames, **asdict(calibrate(forces, reference))})


@calcfunction
def compare_with_labels(before: orm.ArrayData, after: orm.ArrayData) -> orm.Dict:
    """Return the errors of the foundation model and of the fine-tuned committee on the same labelled frames.

    :param before: predictions of the foundation model, with references
    :param after: predictions of the committee, with references; its mean is compared
    :return: ``before`` and ``after``, each with ``all`` and ``by_loading``: n_frames, energy_mae_mev_per_atom,
        force_mae_mev_per_ang, energy_rmse_mev_per_atom, force_rmse_mev_per_ang; ``after`` with the ``calibration`` of
        the committee's force deviation; ``worse``, the mean absolute errors that fine-tuning has raised
    """
    errors: dict[str, Any] = {"before": _errors(before), "after": _errors(after)}
    calibration = calibrate(after.get_array("forces"), after.get_array("reference_forces"))
    errors["after"]["calibration"] = asdict(calibration)
    errors["worse"] = [
        key
        for key in ("energy_mae_mev_per_atom", "force_mae_mev_per_ang")
        if errors["after"]["all"][key] > errors["before"]["all"][key]
    ]
    return orm.Dict(errors)


def _errors(predictions: orm.ArrayData) -> dict[str, Any]:
    offsets = predictions.get_array("offsets")
    counts = np.diff(offsets)
    energies = predictions.get_array("energies").mean(axis=0)
    energy_errors = (energies - predictions.get_array("reference_energies")) / counts
    forces = predictions.get_array("forces").astype(np.float64).mean(axis=0)
    force_errors = forces - predictions.get_array("reference_forces")
    loadings = predictions.get_array("loadings")
    by_loading = {
        str(int(loading)): _error_row(energy_errors, force_errors, counts, loadings == loading)
        for loading in np.unique(loadings)
    }
    everything = _error_row(energy_errors, force_errors, counts, np.ones(len(counts), dtype=bool))
    return {"all": everything, "by_loading": by_loading, "n_models": int(predictions.get_array("energies").shape[0])}


def _error_row(
    energies: NDArray[np.float64], forces: NDArray[np.float64], counts: NDArray[np.int64], frames: NDArray[np.bool_]
) -> dict[str, float]:
    """Return errors in meV/atom and meV/Å of some of the frames."""
    energy, force = 1000.0 * energies[frames], 1000.0 * forces[np.repeat(frames, counts)]
    return {
        "n_frames": int(frames.sum()),
        "energy_mae_mev_per_atom": float(np.abs(energy).mean()),
        "force_mae_mev_per_ang": float(np.abs(force).mean()),
        "energy_rmse_mev_per_atom": float(np.sqrt(np.square(energy).mean())),
        "force_rmse_mev_per_ang": float(np.sqrt(np.square(force).mean())),
    }


@calcfunction
def gather_failures(**failures: orm.Dict) -> orm.Dict:
    """Return the tables of failed labels of several rounds as one, keys with the name of the round before them."""
    tables = {name: node.get_dict() for name, node in sorted(failures.items())}
    return orm.Dict({f"{name}_{key}": row for name, table in tables.items() for key, row in table.items()})
