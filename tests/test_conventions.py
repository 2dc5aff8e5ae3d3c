"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import re
from collections import Counter
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
from aiida.engine import BaseRestartWorkChain, CalcJob, Process, WorkChain
from aiida.engine.processes.ports import PortNamespace

import aiida_mofmace

PACKAGE = Path(aiida_mofmace.__file__).parent
REPOSITORY = PACKAGE.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
GROUPS = ("aiida.calculations", "aiida.data", "aiida.parsers", "aiida.workflows")
ENTRY_POINTS = [point for group in GROUPS for point in entry_points(group=group) if point.name.startswith("mofmace.")]
if find_spec("aiida_lsmo") is None:  # the extra `uff` is not installed
    LOADABLE = [point for point in ENTRY_POINTS if not point.name.startswith("mofmace.uff_")]
else:
    LOADABLE = ENTRY_POINTS
PROCESSES = [point for point in LOADABLE if point.group in ("aiida.calculations", "aiida.workflows")]
LAYERS = ("worker", "data", "protocols", "parsers", "calculations", "workflows", "report", "cli")
HEAVY = {"torch", "mace", "dscribe", "e3nn", "sklearn", "pymbar", "tblite", "matplotlib"}


#: Layers of a network cannot be written without torch; whoever needs them imports them when a model is opened.
MADE_OF_TORCH = {f"worker/kernels/{name}.py" for name in ("contraction", "convolution", "edge_functions", "fused")}


def source_ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def process_of(point) -> type[Process]:
    return point.load()


def own_exit_codes(process: type[Process]) -> list:
    """Exit codes that the class adds to those of aiida-core and of the plugin it builds on."""
    foreign = [base for base in process.__mro__[1:] if not base.__module__.startswith("aiida_mofmace")]
    foreign = [base for base in foreign if issubclass(base, Process) and base not in (Process, WorkChain, CalcJob)]
    inherited = {code.status for base in foreign for code in base.spec().exit_codes.values()}
    inherited |= {code.status for base in (CalcJob, WorkChain) for code in base.spec().exit_codes.values()}
    return [code for code in process.spec().exit_codes.values() if code.status not in inherited]


def test_every_room_has_its_entry_points() -> None:
    assert Counter(point.group for point in ENTRY_POINTS) == {
        "aiida.calculations": 13,
        "aiida.data": 4,
        "aiida.parsers": 13,
        "aiida.workflows": 24,
    }


@pytest.mark.parametrize("point", LOADABLE, ids=lambda point: f"{point.group}:{point.name}")
def test_entry_point_loads(point) -> None:
    assert point.load().__doc__


@pytest.mark.parametrize("point", PROCESSES, ids=lambda point: point.name)
def test_exit_statuses_are_unique_and_in_their_families(point) -> None:
    codes = process_of(point).spec().exit_codes.values()
    repeated = [status for status, count in Counter(code.status for code in codes).items() if count > 1]
    assert not repeated
    for code in own_exit_codes(process_of(point)):
        assert code.status // 100 in (2, 3, 4, 5, 7), f"{code.label} = {code.status}"
        assert len(code.message) > 10, code.label


def ports_without_help(namespace: PortNamespace, prefix: str = "") -> list[str]:
    """Dotted names of the ports that say nothing; those of aiida-core itself are left to aiida-core."""
    missing = []
    for name, port in namespace.items():
        if prefix == "" and name in ("metadata", "monitors", "remote_folder", "retrieved", "remote_stash"):
            continue
        if isinstance(port, PortNamespace) and len(port):
            missing += ports_without_help(port, f"{prefix}{name}.")
        elif not port.help and name not in ("metadata", "monitors", "handler_overrides", "clean_workdir"):
            missing.append(f"{prefix}{name}")
    return missing


@pytest.mark.parametrize("point", PROCESSES, ids=lambda point: point.name)
def test_every_port_has_help(point) -> None:
    process = process_of(point)
    inherited = ("cp2k_label", "cp2k_charges", "cp2k_md", "cp2k_md_base", "uff_isotherm_base")
    if point.name.removeprefix("mofmace.") in inherited:
        pytest.skip("its ports are those of another plugin")
    assert not ports_without_help(process.spec().inputs)
    assert not ports_without_help(process.spec().outputs)


@pytest.mark.parametrize("path", SOURCES, ids=source_ids)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != "define":
            length = (node.end_lineno or 0) - node.lineno + 1
            docstring = ast.get_docstring(node, clean=False)
            assert length - len((docstring or "").splitlines()) <= 50, f"{node.name}: {length} lines"


def imported_modules(path: Path, *, at_import: bool) -> set[str]:
    """Dotted names of what a file imports, at its import only or anywhere; relative ones resolved to the package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    if at_import:
        nested = [n for f in nodes if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)]
        guarded = [
            n for i in nodes if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test) for n in ast.walk(i)
        ]
        nodes = [node for node in nodes if node not in nested and node not in guarded]
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ["aiida_mofmace", *path.relative_to(PACKAGE).parts[:-1]]
            base = package[: len(package) - node.level + 1] if node.level else []
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return names


@pytest.mark.parametrize("path", SOURCES, ids=source_ids)
def test_nothing_heavy_is_imported_with_the_package(path: Path) -> None:
    if source_ids(path) in MADE_OF_TORCH:
        return
    names = imported_modules(path, at_import=True)
    assert not {name.split(".")[0] for name in names} & HEAVY
    modules = {"aiida_mofmace." + name.removesuffix(".py").replace("/", ".") for name in MADE_OF_TORCH}
    assert not names & modules


@pytest.mark.parametrize("path", sorted((PACKAGE / "worker").rglob("*.py")), ids=source_ids)
def test_worker_stands_alone(path: Path) -> None:
    names = imported_modules(path, at_import=False)
    assert not {name for name in names if name.split(".")[0] == "aiida"}
    assert all(name.startswith("aiida_mofmace.worker") for name in names if name.startswith("aiida_mofmace"))
    assert "import aiida_mofmace" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SOURCES, ids=source_ids)
def test_imports_go_downwards(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    if room not in LAYERS:
        pytest.skip("not a room")
    above = set(LAYERS[LAYERS.index(room) + 1 :]) - (
        {"calculations", "parsers"} if room in ("calculations", "parsers") else set()
    )
    used = {name.split(".")[1] for name in imported_modules(path, at_import=False) if name.startswith("aiida_mofmace.")}
    assert not used & above


@pytest.mark.parametrize("path", SOURCES, ids=source_ids)
def test_randomness_has_a_seed_and_yaml_is_loaded_safely(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import random|from random import)", text, re.MULTILINE)
    assert not re.search(r"np\.random\.(?!default_rng|Generator|PCG64|SeedSequence|BitGenerator)", text)
    assert not re.search(r"default_rng\(\s*\)", text)
    assert not re.search(r"yaml\.(load|full_load|unsafe_load)\(", text)
    if room_of(path) != "worker":
        assert not re.search(r"\bpickle\.loads?\(|torch\.load\(", text)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def handlers_of(process: type[BaseRestartWorkChain]) -> list[str]:
    own = [base for base in process.__mro__ if base.__module__.startswith("aiida_mofmace")]
    return [name for base in own for name in vars(base) if process.is_process_handler(name)]


def test_every_handler_is_named_in_a_test() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    restart = [p for p in map(process_of, PROCESSES) if issubclass(p, BaseRestartWorkChain)]
    handlers = {name for process in restart for name in handlers_of(process)}
    assert len(restart) == 9
    assert handlers
    assert not {name for name in handlers if name not in tests}


def test_no_path_of_one_machine() -> None:
    texts = [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *SOURCES,
        *(REPOSITORY / "examples").glob("*"),
    ]
    found = [
        path.name for path in texts if path.is_file() and "/home/" in path.read_text(encoding="utf-8", errors="ignore")
    ]
    assert not found
