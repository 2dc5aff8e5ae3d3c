from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from aiida_mofmace.data.model_file import read_model_metadata
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.programs import fine_tune
from aiida_mofmace.worker.stopping import StopRequest
from aiida_mofmace.worker.training.data import split_frames
from aiida_mofmace.worker.training.mace_options import IDLE_OPTIONS, MACE_OPTIONS

from .selection_fixtures import labelled, run_worker, water_box, write_tiny_model

PARAMETERS: dict[str, Any] = {
    "name": "member",
    "valid_fraction": 0.2,
    "test_fraction": 0.1,
    "e0s": "estimated",
    "batch_size": 5,
    "valid_batch_size": 32,
    "max_epochs": 2,
    "patience": 10,
    "learning_rate": 0.01,
    "weight_decay": 5e-7,
    "forces_weight": 100.0,
    "energy_weight": 1.0,
    "stress_weight": 1.0,
    "n_replay": 10,
    "pseudolabel_replay": True,
}
FILES = {
    "foundation": "foundation.model",
    "dataset": "dataset.extxyz",
    "replay_train": "replay.extxyz",
    "replay_valid": None,
}


def frames(seed: int, n_frames: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    return [labelled(water_box(rng)) for _ in range(n_frames)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_tiny_model(folder / "foundation.model")
    write(folder / "dataset.extxyz", frames(0, 20), format="extxyz")
    write(folder / "replay.extxyz", frames(1, 24), format="extxyz")
    return folder


@pytest.fixture
def here(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for source in sources.iterdir():
        (tmp_path / source.name).symlink_to(source)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class StopAfter(StopRequest):
    """Asks for an end after a number of questions, that is of training batches."""

    def __init__(self, questions: int):
        super().__init__()
        self.questions = questions

    def reason(self) -> str | None:
        self.questions -= 1
        return "walltime" if self.questions < 0 else None


def train(seed: int = 1, stop: StopRequest | None = None, files: dict[str, Any] | None = None, **changes: Any) -> Any:
    inputs = {"seed": seed, "device": "cpu", "dtype": "float64"}
    inputs |= {"files": FILES | (files or {}), "parameters": PARAMETERS | changes}
    return fine_tune.run(inputs, stop or StopRequest())


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(path: str = "model.model") -> str:
    """Digest of the weights; within one process TorchScript numbers the classes of a model file onwards."""
    import torch

    weights = torch.load(path, weights_only=False).state_dict()
    return hashlib.sha256(b"".join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest()


def energies(path: str, head: str, images: list[Atoms]) -> np.ndarray:
    answers = MaceEvaluator(path, dtype="float64", head=head).evaluate(images, forces=False)
    return np.array([answer.energy for answer in answers])


def history(head: str = "Default") -> list[dict[str, Any]]:
    return [record for record in json.loads(Path("history.json").read_text()) if record["head"] == head]


def test_training_improves_the_model_and_says_by_how_much(here: Path) -> None:
    results = train(max_epochs=4)
    records = history()
    assert [record["epoch"] for record in records] == [None, 0, 1, 2, 3]
    assert records[-1]["force_mae_mev_per_ang"] < 0.8 * records[0]["force_mae_mev_per_ang"]
    assert (results["stopped_by"], results["epochs"]) == ("max_epochs", 4)
    errors = results["errors"]["Default"]
    best = next(record for record in records if record["epoch"] == results["best_epoch"])
    assert errors["valid"]["force_mae_mev_per_ang"] == pytest.approx(best["force_mae_mev_per_ang"], rel=1e-6)
    assert errors["valid"]["energy_mae_mev_per_atom"] == pytest.approx(best["energy_mae_mev_per_atom"], rel=1e-6)
    split = json.loads(Path("split.json").read_text())
    assert [len(split[name]) for name in ("train", "valid", "test")] == [14, 4, 2]
    assert sorted(split["train"] + split["valid"] + split["test"]) == list(range(20))
    images = read("dataset.extxyz", index=":")
    test = [images[index] for index in split["test"]]
    offsets = energies("model.model", "Default", test) - [image.info["REF_energy"] for image in test]
    assert errors["test"]["energy_mae_mev_per_atom"] == pytest.approx(1e3 * np.abs(offsets / 6).mean())
    assert not Path("checkpoint.pt").exists()


def test_maces_own_calculator_opens_the_model(here: Path) -> None:
    from mace.calculators import MACECalculator

    train(max_epochs=1)
    image = frames(0, 1)[0]
    for head in ("Default", "pt_head"):
        image.calc = MACECalculator(model_paths="model.model", head=head, device="cpu", default_dtype="float64")
        assert image.get_potential_energy() == pytest.approx(energies("model.model", head, [image])[0], abs=1e-8)


def test_untrained_model_has_the_foundation_in_both_heads(here: Path) -> None:
    images = read("replay.extxyz", index=":")
    results = train(max_epochs=0, e0s="foundation")
    reference = energies("foundation.model", "Default", images)
    for head in ("Default", "pt_head"):
        np.testing.assert_allclose(energies("model.model", head, images), reference, atol=1e-8)
    assert results["replay_after"] == pytest.approx(results["replay_before"])
    metadata = json.loads(Path("model.json").read_text())
    assert metadata["heads"] == ["pt_head", "Default"]
    assert metadata["elements"] == ["H", "C", "O"]
    inert = asdict(read_model_metadata(Path("model.model")))
    assert {name: metadata[name] for name in inert} == inert


def test_replay_head_of_an_earlier_fine_tuning_is_kept(here: Path) -> None:
    train(max_epochs=2)
    Path("model.model").rename("first.model")
    images = read("replay.extxyz", index=":")
    train(max_epochs=0, e0s="foundation", files={"foundation": "first.model"})
    expected = energies("first.model", "pt_head", images)
    np.testing.assert_allclose(energies("model.model", "pt_head", images), expected, atol=1e-6)
    assert np.abs(energies("first.model", "Default", images) - expected).min() > 1.0, "the heads tell E0s apart"


def test_same_seed_gives_the_same_weights_and_another_does_not(here: Path) -> None:
    digests, splits = [], []
    for seed in (1, 1, 2):
        train(seed)
        digests.append(digest())
        splits.append(json.loads(Path("split.json").read_text()))
    assert digests[0] == digests[1] != digests[2]
    assert splits[0]["valid"] != splits[2]["valid"]
    assert splits[0]["test"] == splits[2]["test"], "no member may train on the test frames"


def test_early_stopping_really_stops(here: Path) -> None:
    results = train(max_epochs=50, patience=2, learning_rate=1.0)
    assert results["stopped_by"] == "patience"
    assert results["epochs"] == results["best_epoch"] + 3 < 50
    losses = [record["loss"] for record in history() if record["epoch"] is not None]
    assert int(np.argmin(losses)) == results["best_epoch"]


def test_patience_of_stage_one_leads_to_stage_two(here: Path) -> None:
    results = train(
        max_epochs=42,
        patience=2,
        learning_rate=1.0,
        stage_two_start=40,
        stage_two_learning_rate=1e-4,
        stage_two_forces_weight=10.0,
        stage_two_energy_weight=100.0,
        stage_two_stress_weight=1.0,
    )
    records = [record for record in history() if record["epoch"] is not None]
    first = [record for record in records if record["stage"] == 1]
    second = [record for record in records if record["stage"] == 2]
    assert len(first) < 40
    assert [record["epoch"] for record in second] == [40, 41]
    assert {record["learning_rate"] for record in second} == {1e-4}
    assert results["stage"] == 2
    assert results["best_epoch"] in {40, 41}
    best = {stage: min(part, key=lambda record: record["loss"])["epoch"] for stage, part in ((1, first), (2, second))}
    assert results["best_epochs"] == best
    assert results["errors"]["pt_head"]["train"]["n_frames"] == 10


def test_loss_that_is_no_number_fails(here: Path) -> None:
    with pytest.raises(WorkerError, match="not a number") as error:
        train(learning_rate=1e200, options={"clip_grad": "None"})
    assert error.value.kind == "nan"
    assert not Path("model.model").exists()


def test_stop_in_the_middle_of_an_epoch_still_gives_the_best_model(here: Path) -> None:
    results = train(stop=StopAfter(7), max_epochs=50)  # 14 + 10 frames in batches of 5: 4 an epoch
    assert results["stopped_early"]
    assert (results["stopped_by"], results["epochs"], results["best_epoch"]) == ("walltime", 1, 0)
    assert results["errors"]["Default"]["valid"]["force_mae_mev_per_ang"] == pytest.approx(
        history()[-1]["force_mae_mev_per_ang"], rel=1e-6
    )
    assert Path("checkpoint.pt").exists()


def test_continued_training_is_the_uninterrupted_one_to_the_last_bit(here: Path) -> None:
    two_stages = {"stage_two_start": 3, "stage_two_learning_rate": 1e-3, "ema": True, "ema_decay": 0.9}
    train(max_epochs=5, **two_stages)
    expected, records = digest(), history()
    train(stop=StopAfter(10), max_epochs=5, **two_stages)
    assert digest() != expected
    Path("checkpoint.pt").rename("earlier.pt")
    results = train(max_epochs=5, files={"checkpoint": "earlier.pt"}, **two_stages)
    assert digest() == expected
    assert history() == records
    assert results["stopped_by"] == "max_epochs"


def test_checkpoint_of_another_training_is_refused(here: Path) -> None:
    train(stop=StopAfter(5))
    Path("checkpoint.pt").rename("earlier.pt")
    with pytest.raises(WorkerError, match="other data, seed or parameters"):
        train(seed=2, files={"checkpoint": "earlier.pt"})
    with pytest.raises(WorkerError, match=r"missing\.pt"):
        train(files={"checkpoint": "missing.pt"})


def test_learning_rate_and_average_are_those_asked_for(here: Path) -> None:
    train(max_epochs=1, learning_rate=0.003, ema=True, ema_decay=0.9)
    assert history()[-1]["learning_rate"] == 0.003
    log = next(Path("logs").glob("*_debug.log")).read_text()
    assert "Exponential Moving Average with decay: 0.9\n" in log


def test_further_options_reach_mace(here: Path) -> None:
    train(max_epochs=2, options={"lora": True, "lora_rank": 2, "scheduler": "ExponentialLR", "lr_scheduler_gamma": 0.5})
    assert [record["learning_rate"] for record in history()] == [0.01, 0.01, 0.005]
    images = read("replay.extxyz", index=":")
    difference = energies("model.model", "pt_head", images) - energies("foundation.model", "Default", images)
    assert 1e-6 < np.abs(difference).max() < 1.0, "merged into plain weights that any MACE can open"


IDLE = {
    "num_channels": 64,
    "max_L": 2,
    "hidden_irreps": "16x0e",
    "max_ell": 1,
    "correlation": 1,
    "num_interactions": 1,
    "num_radial_basis": 3,
    "num_cutoff_basis": 2,
    "r_max": 2.0,
    "radial_type": "gaussian",
    "radial_MLP": "[8, 8]",
    "distance_transform": "Agnesi",
    "interaction": "RealAgnosticInteractionBlock",
    "gate": "abs",
    "MLP_irreps": "4x0e",
    "pair_repulsion": True,
    "compute_avg_num_neighbors": False,
    "avg_num_neighbors": 77.0,
    "num_samples_pt": 3,
    "weight_pt_head": 9.0,
    "save_all_checkpoints": True,
    "skip_evaluate_heads": "Default",
}


def test_options_called_idle_change_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the list says of mace is true of the mace installed; that the list refuses is shown elsewhere."""
    train(max_epochs=1)
    plain = digest()
    assert set(IDLE) <= frozenset().union(*IDLE_OPTIONS.values())
    monkeypatch.setattr("aiida_mofmace.worker.training.settings.IDLE_OPTIONS", {})
    train(max_epochs=1, options=IDLE)
    assert digest() == plain


def test_replay_structures_that_validate_do_not_train(here: Path) -> None:
    """The two files share most of their structures."""
    images = read("replay.extxyz", index=":")
    write("replay_valid.extxyz", images[:20], format="extxyz")
    results = train(max_epochs=1, files={"replay_valid": "replay_valid.extxyz"}, n_replay=24, n_replay_valid=20)
    assert results["n_replay"] == 4


@pytest.mark.parametrize(("foundation", "training"), [("float32", "float64"), ("float64", "float32")])
def test_foundation_of_another_precision_is_converted(here: Path, foundation: str, training: str) -> None:
    Path("foundation.model").unlink()
    write_tiny_model(Path("foundation.model"), dtype=foundation)
    inputs = {"seed": 1, "device": "cpu", "dtype": training, "files": FILES, "parameters": PARAMETERS}
    results = fine_tune.run(inputs, StopRequest())
    assert read_model_metadata(Path("model.model")).dtype == training
    assert results["errors"]["Default"]["valid"]["force_mae_mev_per_ang"] < 1e4


def test_predictions_of_test_frames_are_written(here: Path) -> None:
    """They calibrate the committee: the same frames for every seed, and the errors that were reported."""
    errors = train(max_epochs=1)["errors"]["Default"]["test"]
    with np.load("test_predictions.npz") as written:
        first = dict(written)
    train(seed=2, max_epochs=1)
    with np.load("test_predictions.npz") as written:
        second = dict(written)
    assert np.array_equal(first["reference_forces"], second["reference_forces"])
    assert not np.array_equal(first["forces"], second["forces"])
    mae = 1e3 * np.abs(first["forces"] - first["reference_forces"]).mean()
    assert mae == pytest.approx(errors["force_mae_mev_per_ang"])
    assert first["offsets"][-1] == len(first["forces"])


def test_a_training_that_only_harms_shows(here: Path) -> None:
    results = train(max_epochs=2, learning_rate=3.0)
    losses = [record["loss"] for record in history()]
    assert history()[0]["epoch"] is None
    assert min(losses[1:]) > losses[0]
    assert results["best_epoch"] in (0, 1)
    progress = json.loads(Path("progress.json").read_text())
    assert (progress["epochs_done"], progress["max_epochs"]) == (2, 2)
    assert progress["best_epoch"] == results["best_epoch"]
    assert progress["seconds_per_epoch"] > 0.0


def weights_of(path: str) -> dict[str, np.ndarray]:
    import torch

    return {name: value.numpy() for name, value in torch.load(path, weights_only=False).state_dict().items()}


def test_cuequivariance_gives_the_same_training(here: Path) -> None:
    """And an ordinary model; without a GPU its operations are those of plain PyTorch."""
    pytest.importorskip("cuequivariance_torch", reason="pip install cuequivariance-torch to test enable_cueq")
    plain = train(max_epochs=2)["errors"]["Default"]["valid"]
    faster = train(max_epochs=2, options={"enable_cueq": True})["errors"]["Default"]["valid"]
    assert faster["force_mae_mev_per_ang"] == pytest.approx(plain["force_mae_mev_per_ang"], rel=1e-3)
    from mace.calculators import MACECalculator

    MACECalculator("model.model", device="cpu", default_dtype="float64", head="Default")


def test_frozen_layers_keep_their_weights(here: Path) -> None:
    """mace's ``freeze`` 5 holds embedding and interactions; products and readouts are trained."""
    train(max_epochs=0)
    before = weights_of("model.model")
    train(max_epochs=1, options={"freeze": 5})
    after = weights_of("model.model")
    changed = {name.partition(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert "interactions" not in changed
    assert "node_embedding" not in changed
    assert {"products", "readouts"} <= changed


def test_low_rank_training_ends_as_an_ordinary_model(here: Path) -> None:
    train(max_epochs=0)
    before = weights_of("model.model")
    train(max_epochs=1, options={"lora": True, "lora_rank": 2})
    after = weights_of("model.model")
    assert set(after) == set(before)
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    assert np.isfinite(energies("model.model", "Default", frames(0, 2))).all()


def test_naive_training_has_one_head_and_measures_forgetting(here: Path) -> None:
    results = train(multihead=False, max_epochs=3, pseudolabel_replay=False)
    assert json.loads(Path("model.json").read_text())["heads"] == ["Default"]
    assert results["n_replay"] == 0
    assert results["replay_reference"] == "labels"
    assert results["replay_after"]["energy_mae_mev_per_atom"] < results["replay_before"]["energy_mae_mev_per_atom"]


def test_replay_without_labels_is_pseudolabelled_or_refused(here: Path) -> None:
    bare = [Atoms(image.symbols, image.positions, cell=image.cell, pbc=True) for image in frames(3, 12)]
    write("bare.extxyz", bare, format="extxyz")
    results = train(max_epochs=1, files={"replay_train": "bare.extxyz"})
    assert results["replay_reference"] == "foundation"
    assert results["replay_before"]["force_mae_mev_per_ang"] == pytest.approx(0.0, abs=1e-6)
    assert results["replay_after"]["force_mae_mev_per_ang"] > 0.1
    with pytest.raises(WorkerError, match="replay data: frame 0"):
        train(files={"replay_train": "bare.extxyz"}, pseudolabel_replay=False)


def test_estimated_atomic_energies_remove_the_offset(here: Path) -> None:
    results = train(max_epochs=0)
    assert results["errors"]["Default"]["train"]["energy_mae_mev_per_atom"] < 5.0
    shifted = train(max_epochs=0, e0s={"H": -1.0, "C": -6.0, "8": -8.5})
    plain = train(max_epochs=0, e0s="foundation")
    # three of the six atoms are oxygen, half an eV lower each
    difference = [each["errors"]["Default"]["train"]["energy_mae_mev_per_atom"] for each in (shifted, plain)]
    assert abs(difference[0] - difference[1]) == pytest.approx(250.0, rel=1e-6)


def test_all_frames_train_when_the_batch_is_too_large(here: Path) -> None:
    results = train(max_epochs=1, batch_size=500)
    assert results["batch_size"] == 24
    assert history()[-1]["train_loss"] > 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_epoch": 3}, "max_epochs"),
        ({"options": {"scheduler_patienc": 5}}, "scheduler_patience"),
        ({"options": {"lr": 0.1}}, "learning_rate"),
        ({"options": {"device": "cuda"}}, "decided"),
        ({"options": {"clip_grad": "much"}}, "clip_grad"),
        ({"stage_two_start": 2}, "below max_epochs"),
        ({"e0s": "average"}, "estimated"),
        ({"e0s": {"H": -1.0}}, "C, O"),
        ({"valid_fraction": 1.5}, "valid_fraction"),
        ({"test_fraction": 0.99}, "too few"),
    ],
)
def test_bad_parameters_are_refused(here: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerError, match=message) as error:
        train(**changes)
    assert error.value.kind == "bad_input"


def test_list_of_options_is_that_of_the_installed_mace() -> None:
    from mace.tools import build_default_arg_parser

    actions = {action.dest for action in build_default_arg_parser()._actions if action.option_strings}
    assert actions - {"help"} == MACE_OPTIONS


def test_same_structures_never_train_and_judge(here: Path) -> None:
    """Ten structures, each labelled three times: all three copies are in one part, whatever the seed."""
    originals = frames(0, 10)
    images = [copy for image in originals for copy in (image, image.copy(), image.copy())]
    settings = fine_tune.FineTuneSettings.from_parameters(PARAMETERS | {"test_fraction": 0.2})
    splits = [split_frames(images, settings, seed) for seed in range(5)]
    for split in splits:
        parts = [{index // 3 for index in part} for part in (split.train, split.valid, split.test)]
        assert [len(part) for part in parts] == [6, 2, 2]
        assert len(parts[0] | parts[1] | parts[2]) == 10
        assert sorted([*split.train, *split.valid, *split.test]) == list(range(30))
    assert len({tuple(split.test) for split in splits}) == 1
    assert len({tuple(split.valid) for split in splits}) > 1


def test_labels_without_forces_are_refused(here: Path) -> None:
    images = frames(0, 6)
    del images[4].arrays["REF_forces"]
    images[4].arrays["forces"] = np.zeros((6, 3))
    write("partial.extxyz", images, format="extxyz")
    with pytest.raises(WorkerError, match="frame 4 has no complete REF_forces") as error:
        train(files={"dataset": "partial.extxyz"})
    assert error.value.kind == "bad_input"


def test_elements_unknown_to_the_foundation_are_refused(here: Path) -> None:
    images = frames(0, 6)
    images[0].numbers[3] = 30
    write("zinc.extxyz", images, format="extxyz")
    with pytest.raises(WorkerError, match="does not know Zn"):
        train(files={"dataset": "zinc.extxyz"})


def test_multihead_without_replay_is_refused(here: Path) -> None:
    with pytest.raises(WorkerError, match="replay_train"):
        train(files={"replay_train": None})


def test_lack_of_memory_is_told_as_such(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def hungry(*_: Any, **__: Any) -> None:
        torch.empty(10**15)

    monkeypatch.setattr(fine_tune, "train", hungry)
    with pytest.raises(WorkerError, match="batch_size") as error:
        train()
    assert error.value.kind == "out_of_memory"


@pytest.fixture
def signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_sigterm_before_the_first_epoch_still_gives_a_model(here: Path) -> None:
    stop = StopRequest()
    stop.listen()
    signal.raise_signal(signal.SIGTERM)
    results = train(stop=stop)
    assert (results["stopped_by"], results["epochs"], results["best_epoch"]) == ("SIGTERM", 0, None)
    assert results["stopped_early"]
    assert Path("model.model").exists()


def test_two_jobs_with_one_seed_write_the_same_bytes(here: Path) -> None:
    digests = set()
    for name in ("first", "second"):
        folder = here / name
        folder.mkdir()
        for source in FILES.values():
            if source is not None:
                (folder / source).symlink_to(here / source)
        code, output = run_worker(folder, "fine_tune", files=FILES, parameters=PARAMETERS | {"max_epochs": 1})
        assert code == 0, output["stderr"]
        assert output["status"] == "finished"
        digests.add(file_digest(folder / "model.model"))
    assert len(digests) == 1
