"""The documentation builds without a warning, and what it tells the reader to type exists."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import yaml
from aiida import orm
from aiida.plugins.entry_point import get_entry_points

from aiida_mofmace.cli import mofmace
from aiida_mofmace.protocols import load_protocol
from aiida_mofmace.workflows.parameter_checks import validate_parameters
from aiida_mofmace.workflows.protocols import resolve

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PAGES = [page for page in PAGES if "generated" not in page.parts and "_build" not in page.parts]


def page_id(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    out = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(out / "trees")]
    result = subprocess.run([*command, str(DOCS), str(out)], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return out


@pytest.mark.parametrize("page", [REPOSITORY / "README.md", DOCS / "howto" / "slurm_cluster.md"], ids=page_id)
def test_a_compute_machine_is_told_all_that_the_worker_needs(page: Path) -> None:
    """It has nothing of aiida-mofmace, so what stands there is all that it gets."""
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    extra = re.search(r"^worker = \[(.*)\]$", project, re.MULTILINE)
    assert extra is not None
    wanted = {re.split(r"[<>=]", name)[0] for name in re.findall(r'"([^"]+)"', extra[1])} | {"ase", "pymbar"}
    text = page.read_text(encoding="utf-8")
    line = re.search(r"pip install (mace-torch.*)$|(A compute machine needs only .*?):", text, re.MULTILINE | re.DOTALL)
    assert line is not None
    named = set(re.findall(r"`([^`]+)`", line[2])) if line[2] else set(line[1].split("\n")[0].split())
    assert named == wanted


def test_documentation_builds_without_a_warning(site: Path) -> None:
    assert (site / "index.html").is_file()


def test_reference_names_every_process_with_its_exit_codes(site: Path) -> None:
    for group, name in (("aiida.workflows", "workflows"), ("aiida.calculations", "calculations")):
        page = (site / "reference" / "generated" / f"{name}.html").read_text(encoding="utf-8")
        processes = [point for point in get_entry_points(group) if point.name.startswith("mofmace.")]
        if find_spec("aiida_lsmo") is None:  # the extra `uff` is not installed
            processes = [point for point in processes if not point.name.startswith("mofmace.uff_")]
        assert processes
        for point in processes:
            process = point.load()
            assert f"<h2>{process.__name__}<" in page
            for label in process.spec().exit_codes:
                if label.startswith(("WARNING", "ERROR_SCF", "ERROR_TOO_FEW", "ERROR_STOPPED")):
                    assert label in page


def test_reference_has_every_key_of_the_protocols(site: Path) -> None:
    page = (site / "reference" / "generated" / "protocols.html").read_text(encoding="utf-8")
    for section, values in load_protocol("fast").items():
        for key in values if isinstance(values, dict) else ():
            assert f"{section}.{key}" in page


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)|```\{(?:image|literalinclude)\} (\S+)", text)
    for target in (first or second for first, second in targets):
        if "://" not in target and "generated" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_in_the_documentation_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_names_imported_in_the_documentation_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiida_mofmace"):
                module = __import__(str(node.module), fromlist=[alias.name for alias in node.names])
                assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_overrides_in_the_documentation_are_keys_of_the_protocols(page: Path) -> None:
    for block in blocks(page, "yaml"):
        content = yaml.safe_load(block)
        if isinstance(content, dict) and {"resources", "isotherm"} & set(content):
            resolve("fast", content)
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.keyword) and node.arg == "overrides" and isinstance(node.value, ast.Dict):
                resolve("fast", ast.literal_eval(node.value))


def overrides_in_python(page: Path) -> list[dict]:
    """The mappings that stand as ``overrides=`` or ``overrides =`` in what the reader is to copy."""
    nodes = [node for block in blocks(page, "python") for node in ast.walk(ast.parse(block))]
    values = [node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "overrides"]
    named = [node for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "overrides"]
    values += [node.value for node in named]
    return [ast.literal_eval(value) for value in values if isinstance(value, ast.Dict)]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_overrides_in_python_are_accepted(page: Path, aiida_profile) -> None:
    for overrides in overrides_in_python(page):
        assert validate_parameters(orm.Dict(resolve("fast", overrides)), None) is None, overrides


def test_overrides_in_python_are_found_at_all() -> None:
    assert sum(len(overrides_in_python(page)) for page in PAGES) > 7


def typed_commands(page: Path) -> list[list[str]]:
    text = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines()]
    inline = re.findall(r"`(mofmace [a-z][^`]*)`", page.read_text(encoding="utf-8"))
    return [shlex.split(line, comments=True) for line in [*lines, *inline] if line.startswith("mofmace ")]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_in_the_documentation_exist(page: Path) -> None:
    for words in typed_commands(page):
        command: click.Command = mofmace
        for word in words[1:]:
            if isinstance(command, click.Group):
                assert word in command.commands, " ".join(words)
                command = command.commands[word]
            elif word.startswith("-"):
                assert word in {name for option in command.params for name in option.opts}, " ".join(words)


def test_commands_are_found_at_all() -> None:
    assert sum(len(typed_commands(page)) for page in PAGES) > 15
