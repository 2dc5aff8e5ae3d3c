"""Models as nodes, read without running what stands in their pickles."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError

from aiida_mofmace.data import model as model_module
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.data.model_file import read_model_metadata
from aiida_mofmace.starter import STARTER_METADATA

from ..worker.engine_fixtures import ATOMIC_ENERGIES, write_tiny_mace


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_mace(tmp_path_factory.mktemp("single") / "single.model")


@pytest.fixture(scope="module")
def multihead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_mace(tmp_path_factory.mktemp("multi") / "multi.model", heads=("pt_head", "Default"))


def test_metadata_agree_with_torch(multihead: Path) -> None:
    import mace  # noqa: F401
    import torch

    model = torch.load(multihead, weights_only=False)
    metadata = read_model_metadata(multihead)
    assert metadata.n_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert metadata.r_max == float(model.r_max)
    assert metadata.heads == list(model.heads)
    assert metadata.dtype == str(next(model.parameters()).dtype).removeprefix("torch.")
    energies = model.atomic_energies_fn.atomic_energies.tolist()
    assert [list(metadata.atomic_energies[head].values()) for head in metadata.heads] == energies


def test_single_head(single: Path) -> None:
    metadata = read_model_metadata(single)
    assert metadata.elements == ["H", "C", "O", "Al"]
    assert metadata.heads == ["Default"]
    assert list(metadata.atomic_energies["Default"].values()) == list(ATOMIC_ENERGIES.values())
    assert metadata.r_max == 4.0


def test_reading_imports_no_torch(multihead: Path) -> None:
    program = (
        "import sys; from aiida_mofmace.data.model import MaceModelData; from aiida_mofmace.data.model_file import *;"
        f"read_model_metadata({str(multihead)!r}); print({{'torch', 'mace', 'e3nn'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class Malice:
    """What runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def _with_pickle(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", content)
        archive.writestr("model/byteorder", "little")
    return path


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = pickle.dumps(Malice(f"touch {trace}"), protocol=2)
    pickle.loads(content)  # noqa: S301
    assert trace.exists(), "the pickle of this test does nothing"
    trace.unlink()
    with pytest.raises(ValueError, match=r"is not a MACE model: it holds a posix.system"):
        read_model_metadata(_with_pickle(tmp_path / "bad.model", content))
    assert not trace.exists()


def test_code_hidden_in_a_real_model_does_not_run(single: Path, tmp_path: Path) -> None:
    """The model's own pickle behind a first opcode that would run a command."""
    trace = tmp_path / "trace"
    bad = tmp_path / "bad.model"
    with zipfile.ZipFile(single) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/data.pkl"):
                command = f"touch {trace}".encode()
                malice = b"cposix\nsystem\n(X" + len(command).to_bytes(4, "little") + command + b"tR0"
                content = content[:2] + malice + content[2:]
            target.writestr(name, content)
    assert read_model_metadata(bad).elements == ["H", "C", "O", "Al"]
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no archive at all", "it is no zip archive of torch.save"),
        (pickle.dumps({"weights": 1}, protocol=2), "it holds a dict"),
        (b"\x80\x02rubbish", "its content cannot be read"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.model"
    if content.startswith(b"\x80"):
        _with_pickle(path, content)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_model_metadata(path)


def test_a_torch_file_of_something_else_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 2), tmp_path / "linear.model")
    with pytest.raises(ValueError, match=r"it holds a torch\.nn\.modules\.linear\.Linear"):
        read_model_metadata(tmp_path / "linear.model")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "state.model")
    with pytest.raises(ValueError, match="is not a MACE model"):
        read_model_metadata(tmp_path / "state.model")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.model")
    with pytest.raises(ValueError, match="compiled TorchScript"):
        read_model_metadata(tmp_path / "script.model")


def test_a_cut_file_is_refused(single: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.model").write_bytes(single.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="is not a MACE model"):
        read_model_metadata(tmp_path / "cut.model")


def test_node_can_be_queried(aiida_profile_clean: Any, single: Path) -> None:
    node = MaceModelData.from_file(single, kind="fine_tuned", name="member").store()
    filters = {"attributes.elements": {"contains": ["Al"]}, "attributes.kind": "fine_tuned", "attributes.r_max": 4.0}
    found = orm.QueryBuilder().append(MaceModelData, filters=filters).all(flat=True)
    assert [each.uuid for each in found] == [node.uuid]
    assert found[0].sha256 == read_model_metadata(single).sha256
    assert found[0].content == single.read_bytes()
    assert (found[0].name, found[0].dtype, found[0].mace_version) == ("member", "float64", None)


def test_wrong_kind_and_missing_file(aiida_profile: Any, single: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be one of foundation, fine_tuned"):
        MaceModelData.from_file(single, kind="good")
    with pytest.raises(FileNotFoundError, match="give the path of a MACE model"):
        MaceModelData.from_file(tmp_path / "none.model")


def test_a_node_without_metadata_cannot_be_stored(aiida_profile: Any) -> None:
    with pytest.raises(ValidationError, match="from_file"):
        MaceModelData(file=io.BytesIO(b"x"), filename="model.model").store()


def test_unknown_foundation_model(aiida_profile: Any) -> None:
    with pytest.raises(ValueError, match="known are MACE-MP-0b2-medium"):
        MaceModelData.foundation("MACE-MP-9")


def test_starter_model_is_what_its_description_says(aiida_profile_clean: Any) -> None:
    node = MaceModelData.starter()
    described = json.loads(STARTER_METADATA.read_text(encoding="utf-8"))
    assert {"H", "C", "O", "Al"} <= set(node.elements)
    assert (node.kind, node.name) == ("foundation", "mofmace-starter")
    assert node.sha256 == described["sha256"]
    assert node.store().uuid == MaceModelData.starter().uuid


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return mace's own cache, empty, where no network can be reached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path / "mace"


def test_no_network_is_said_so(aiida_profile: Any, cache: Path) -> None:
    with pytest.raises(
        RuntimeError, match=r"could not be had: the download of https://github.com/.* failed: .*refused"
    ):
        MaceModelData.foundation("MACE-MP-0b2-medium")


def test_a_file_with_another_checksum_is_refused(aiida_profile: Any, cache: Path, single: Path) -> None:
    cache.mkdir()
    (cache / "macemediumdensityagnesistressmodel").write_bytes(single.read_bytes())
    with pytest.raises(
        ValueError, match="a90be07c8aa6623c390fcc4653d3e319c4a356f8b4a53d323f96b2012d375caf is published"
    ):
        MaceModelData.foundation("MACE-MP-0b2-medium")


def test_a_file_with_the_published_checksum_is_taken_and_stored_once(
    aiida_profile_clean: Any, cache: Path, single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / "published.yaml"
    published.write_text(f"Tiny:\n  name_in_mace: medium-0b2\n  sha256: {read_model_metadata(single).sha256}\n")
    monkeypatch.setattr(model_module, "_FOUNDATION_MODELS", published)
    cache.mkdir()
    (cache / "macemediumdensityagnesistressmodel").write_bytes(single.read_bytes())
    node = MaceModelData.foundation("Tiny").store()
    assert (node.kind, node.name) == ("foundation", "Tiny")
    assert MaceModelData.foundation("Tiny").uuid == node.uuid
