"""The report and the summary say what the nodes say, and say what is missing."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.tools.archive import create_archive

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.report.collect import collect
from aiida_mofmace.report.html import render, write_report
from aiida_mofmace.report.label_export import write_labels
from aiida_mofmace.report.labels import find_labels
from aiida_mofmace.report.summary import _heat, summary, with_error, with_power
from aiida_mofmace.report.summary import render as render_summary
from aiida_mofmace.report.training import warnings

from .fake_run import LOADINGS, PRESSURES, FakeRun, fake_run

SECTIONS = ("isotherm", "heat", "model", "parity", "selection", "labels", "run")
VOID = {"meta", "input", "br", "hr", "img", "link"}


@pytest.fixture(scope="module")
def run(aiida_profile) -> orm.WorkChainNode:
    aiida_profile.reset_storage()
    return fake_run()


@pytest.fixture(scope="module")
def data(run) -> dict[str, Any]:
    return collect(run)


@pytest.fixture(scope="module")
def page(run, tmp_path_factory) -> str:
    path = write_report(run, tmp_path_factory.mktemp("report") / "report.html")
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Collects identifiers and references, and sees whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += [attributes[key] for key in ("src", "href", "srcset", "data", "poster") if key in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_loads_nothing(page: str) -> None:
    outline = Outline(page)
    assert outline.open == []
    assert set(SECTIONS) <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.references == []
    assert not outline.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"url\(|@import", page)
    assert len(page.encode()) < 2_000_000


def test_every_figure_is_well_formed_and_has_finite_coordinates(page: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    # structure, isotherm on two axes, loading, learning curve, deviations, four parities, three maps, timeline
    assert len(figures) == 14
    for figure in figures:
        root = ElementTree.fromstring(figure)  # noqa: S314
        assert root.attrib["aria-label"]
        assert "nan" not in figure
        assert "inf" not in re.sub(r"<title>.*?</title>|<text.*?</text>|aria-label=\"[^\"]*\"", "", figure)


def test_colours_follow_the_theme(page: str) -> None:
    figures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r'(fill|stroke|style)="', figures)
    used = {name for value in re.findall(r'class="([^"]*)"', figures) for name in value.split()}
    style = page[: page.index("</style>")]
    unknown = {name for name in used if not re.search(rf"\.{re.escape(name)}\b", style)}
    assert unknown == set()


def test_errors_are_those_of_the_arrays(run: orm.WorkChainNode, data: dict[str, Any], page: str) -> None:
    chain = next(node for node in run.called if node.process_label == "ValidationWorkChain")
    for stage in ("before", "after"):
        node = chain.base.links.get_outgoing(orm.ArrayData).get_node_by_label(f"parity_{stage}")
        counts = np.diff(node.get_array("offsets"))
        energies = node.get_array("energies").mean(axis=0) - node.get_array("reference_energies")
        forces = node.get_array("forces").astype(float).mean(axis=0) - node.get_array("reference_forces")
        force_mae, energy_mae = 1000 * np.abs(forces).mean(), 1000 * np.abs(energies / counts).mean()
        assert data["parity"][stage]["force_mae_mev_per_ang"] == pytest.approx(force_mae, rel=1e-5)
        assert data["parity"][stage]["energy_mae_mev_per_atom"] == pytest.approx(energy_mae, rel=1e-9)
        assert f"mean absolute error {force_mae:.1f} meV/Å" in page
        assert f"mean absolute error {energy_mae:.2f} meV/atom" in page
    # The committee's mean is better than its members, and four are averaged after fine-tuning.
    assert data["parity"]["after"]["n_models"] == 4


def test_members_and_what_they_forgot_are_shown(run: orm.WorkChainNode, data: dict[str, Any], page: str) -> None:
    assert [row["name"] for row in data["members"]] == ["seed_0", "seed_1", "seed_2", "seed_3"]
    last = max(node.pk for node in run.called_descendants if node.process_label == "FineTuneCommitteeWorkChain")
    assert min(row["pk"] for row in data["members"]) > last
    assert "150.0 → 163.0" in page
    assert "Replay data 3.5 -> 3.5 meV/atom, 150.0 -> 161.5 meV/Å, mean of 4 members" in summary(run)


def test_calibration_is_shown(run: orm.WorkChainNode, data: dict[str, Any], page: str) -> None:
    calibration = data["parity"]["after"]["calibration"]
    # Errors of 0.06 eV/Å drawn independently for 4 members: the mean's error is theirs over sqrt(3), and a little more.
    assert calibration["ratio"] == pytest.approx(0.6, abs=0.1)
    assert f"{calibration['ratio']:.1f} times its deviation" in summary(run)
    assert f"miscalibration area {calibration['miscalibration']:.2f}" in page
    assert data["parity"]["before"]["calibration"]["ratio"] is None


def test_a_model_that_fine_tuning_made_worse_is_announced(data: dict[str, Any]) -> None:
    assert data["warnings"] == []
    before, after = data["parity"]["before"], data["parity"]["after"]
    worse = {"before": before, "after": {**after, "energy_mae_mev_per_atom": 2 * before["energy_mae_mev_per_atom"]}}
    found = warnings(worse)
    assert len(found) == 1
    assert found[0].startswith("Fine-tuning has made the energies worse: ")
    text = render_summary({**data, "parity": worse, "warnings": found})
    assert f"WARNING: {found[0]}" in text


def test_isotherm_and_heat_are_those_of_the_nodes(run: orm.WorkChainNode, data: dict[str, Any], page: str) -> None:
    points = run.outputs.isotherm["points"]
    assert [point["loading_mol_per_kg"] for point in points] == list(LOADINGS)
    for point in points:
        cell = with_error(point["loading_mol_per_kg"], point["loading_mol_per_kg_error"])
        assert f'<td class="number">{cell}</td>' in page
    heat = run.outputs.heat_of_adsorption
    value = with_error(heat["value_kJ_per_mol"], heat["error_kJ_per_mol"], 1).replace("-", "\N{MINUS SIGN}")
    assert f'<td class="number">{value}</td>' in page
    log = next(figure for figure in re.findall(r"<svg.*?</svg>", page, re.DOTALL) if "Adsorption isotherm" in figure)
    # Only the point that did not converge is hollow (and its mark in the legend).
    hollow = re.findall(r'class="mark s1 hollow">(?:<title>(.*?)</title>)?', log)
    tip = f"{with_error(LOADINGS[-1], 0.34, 2, 'mol/kg')} at 1 bar, 4.0 % of the time in holes of the model"
    assert [text for text in hollow if text] == [tip]
    for source in ("Volkringer et al. 2009", "Chen et al. 2024"):
        assert source in log


def test_a_heat_that_is_not_converged_is_marked(data: dict[str, Any]) -> None:
    heat = {**data["heat_of_adsorption"], "converged": False}
    assert "not converged" in "\n".join(_heat({**data, "heat_of_adsorption": heat}))
    assert "not converged" not in "\n".join(_heat(data))


def test_experiments_belong_to_their_material_and_gas(run: orm.WorkChainNode, data: dict[str, Any]) -> None:
    from aiida_mofmace.report.experiments import measured

    counts = {"Al": 4, "H": 10, "C": 10, "O": 16}
    volkringer = measured(counts, "CO2")["isotherms"][0]
    assert len(volkringer["pressure_bar"]) == len(volkringer["loading_mol_per_kg"]) == 13
    assert (volkringer["pressure_bar"][1], volkringer["loading_mol_per_kg"][1]) == (0.0961765, 1.15176)
    assert measured({symbol: 4 * count for symbol, count in counts.items()}, "CO2")["material"] == "MIL-120(Al)"
    assert measured(counts, "N2")["isotherms"] == []
    assert measured(counts | {"Zn": 1}, "CO2")["isotherms"] == []
    assert data["header"]["material"] == "MIL-120(Al)"


def test_labels_and_failures_are_counted(run: orm.WorkChainNode, data: dict[str, Any], page: str) -> None:
    made = orm.QueryBuilder().append(DftLabelData).count()
    assert data["labels"]["made"] == made == 19
    assert data["labels"]["levels"] == [{"name": "GFN1-xTB", "hash": "5f0c9d1e2a7b", "count": 19}]
    assert [(row["where"], row["key"]) for row in data["failures"]] == [
        ("labels", "frame_0000"),
        ("labels", "frame_0001"),
        ("active_learning / label_01", "frame_0000"),
    ]
    assert page.count("the SCF did not converge in 300 steps") == 3
    assert "19 labels were made and 3 could not be had" in page


def test_flagged_labels_are_counted_with_their_reason(run: orm.WorkChainNode, data: dict[str, Any], page: str) -> None:
    assert [(row["where"], row["key"]) for row in data["flagged"]] == [("labels", "frame_0009")]
    assert "1 labels were flagged by the sanity filter, of which 1 were left out of the dataset" in page
    assert page.count("a force of 61.50 eV/Å is above 50 eV/Å") == 1
    lines = summary(run).splitlines()
    assert "            1 flagged, 1 of them left out of the dataset" in lines
    assert "  labels, frame_0009: a force of 61.50 eV/Å is above 50 eV/Å" in lines


def test_series_is_the_last_chunk_of_each_pressure(run: orm.WorkChainNode, data: dict[str, Any]) -> None:
    series = data["timeseries"]
    assert [row["pressure_Pa"] for row in series] == list(PRESSURES)
    for row in series:
        assert list(row["step"]) == list(range(5, 10_001, 5))


def test_replicas_stand_below_their_mean(data: dict[str, Any], page: str) -> None:
    """With their own errors, and why one does not count."""
    assert '<tr class="part">' not in page
    first, *rest = data["isotherm"]["points"]
    rows = [first | {"counted": True, "reason": ""}, first | {"counted": False, "reason": "too hot"}]
    changed = {**data, "isotherm": {**data["isotherm"], "points": [{**first, "replicas": rows}, *rest]}}
    changed_page = render(changed)
    assert changed_page.count('<tr class="part">') == 2
    assert "left out: too hot" in changed_page
    assert "Each loading is the mean of independent runs" in changed_page
    assert "Isotherm at 303 K, 2 runs at each pressure" in render_summary(changed)


def test_components_of_a_mixture_stand_below_the_whole(data: dict[str, Any], page: str) -> None:
    """Each in all three units, with its isosteric heat."""
    first, *rest = data["isotherm"]["points"]
    wet = {**first, "loading_cm3_stp_per_gram": 7.7, "isosteric_heat_kJ_per_mol": 51.5}
    changed = {**data, "isotherm": {**data["isotherm"], "points": [{**first, "components": {"H2O": wet}}, *rest]}}
    row = re.search(r'<tr class="part">.*?</tr>', render(changed), re.DOTALL)
    assert row is not None
    assert "H₂O" in row.group()
    assert "7.7 ±" in row.group()
    assert "51.5</td>" in row.group()
    line = next(line for line in render_summary(changed).splitlines() if line.startswith("         H2O"))
    assert line.endswith("51.5 kJ/mol")


def test_henry_coefficient_beside_the_slope(run: orm.WorkChainNode, data: dict[str, Any], page: str) -> None:
    line = next(line for line in summary(run).splitlines() if line.startswith("Henry coefficient"))
    beside = "loading over fugacity at 0.02 bar: (3.10 ± 0.55)·10⁻⁴"
    assert line == f"Henry coefficient of CO2 at 303 K: (4.20 ± 0.60)·10⁻⁴ mol/(kg Pa); {beside}"
    assert '<td class="number">(4.20 ± 0.60)·10⁻⁴</td>' in page
    assert "(3.10 ± 0.55)·10⁻⁴ at 0.02 bar</td>" in page
    assert "41.3 ± 2.2" in page
    assert 'id="henry"' not in render({**data, "henry_coefficient": {}})
    henry = data["henry_coefficient"]
    rough = {**data, "henry_coefficient": {**henry, "gases": {"CO2": henry["gases"]["CO2"] | {"converged": False}}}}
    assert "(4.20 ± 0.60)·10⁻⁴ (not converged)" in render(rough)
    assert "·10⁻⁴ mol/(kg Pa), not converged;" in render_summary(rough)


def test_powers_of_ten() -> None:
    assert with_power(None, None, "x") == "-"
    assert with_power(0.0, None, "x") == "0.00 x"
    assert with_power(1.5e-3, None, "x") == "1.50·10⁻³ x"
    assert with_power(1e-4, 2e-3) == "(0.10 ± 2.00)·10⁻³"


def test_deviations_have_their_window(run: orm.WorkChainNode, data: dict[str, Any], page: str) -> None:
    rows = data["deviations"]
    assert [row["name"] for row in rows] == [f"active_learning / committee_{i:02d}" for i in range(3)]
    inside = [int(((row["sigma_max"] >= 0.06) & (row["sigma_max"] <= 0.24)).sum()) for row in rows]
    for count in inside:
        assert f"{count} of 900 in the window" in page


def test_uff_stands_beside_the_trained_potential(run: orm.WorkChainNode, data: dict[str, Any], page: str) -> None:
    assert [point["pressure_Pa"] for point in data["uff_isotherm"]["points"]] == [2.0e3, 1.0e5]
    rows = re.findall(r"<tr>.*?</tr>", page[page.index('id="uff"') :], re.DOTALL)
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", rows[1], re.DOTALL)]
    assert cells[:2] == ["0.02", "4.10 ± 0.07"]
    mace = data["isotherm"]["points"][0]
    assert cells[2] == with_error(mace["loading_mol_per_kg"], mace["loading_mol_per_kg_error"])
    assert page.count("4.87 ± 0.07 mol/kg at 1 bar") == 2  # in the figure on either axis
    assert page.count("UFF, rigid framework, 303 K") == 2
    assert re.search(
        r"UFF and a rigid framework at 303 K\n +0\.02 bar +4\.10 ± 0\.07 mol/kg$", summary(run), re.MULTILINE
    )


def test_what_a_selection_left_out_is_told(page: str) -> None:
    assert "12 further frames of the pool are not on the map" in page
    assert "of 630 frames 4 duplicate could not be chosen. 2 too few for the quota of *_3CO2." in page
    assert "17 frames of uff_303K_100000Pa_4CO2 have no quota." in page


def test_methods_of_selection_are_compared(page: str) -> None:
    table = page[page.index('aria-label="Coverage by method"') :]
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", table, re.DOTALL)]
    assert cells[1:5] == ["farthest point sampling", "55", "60", "1.083"]
    assert cells[6:10] == ["K-means, nearest to each centre (taken)", "57", "60", "1.361"]
    assert cells[11:15] == ["random", "41.3 ± 2.4", "60", "1.774"]


def test_wall_time_of_a_phase_is_its_own(run: orm.WorkChainNode, data: dict[str, Any]) -> None:
    phases = {row["name"]: row for row in data["phases"]}
    assert phases["validation"]["wall_seconds"] == pytest.approx(84.0)
    assert phases["label_01"]["depth"] == 2
    assert data["header"]["wall_seconds"] == pytest.approx(
        sum(row["wall_seconds"] for row in phases.values() if row["depth"] == 1)
    )


def test_summary(run: orm.WorkChainNode, data: dict[str, Any]) -> None:
    text = summary(run)
    assert text.startswith("MIL-120(Al) + CO2, protocol fast")
    assert f"<{run.pk}> finished [0]  {run.uuid}" in text
    assert "Labels      19 made (19 at GFN1-xTB), 3 failed" in text
    assert re.search(r"0\.096 bar +2\.37 ± 0\.16 mol/kg +1\.17 ± 0\.08 +86 +39\.2 ± 3\.3 kJ/mol$", text, re.MULTILINE)
    assert re.search(r"1 bar .*not converged, 4 % of the time in holes of the model$", text, re.MULTILINE)
    assert "Heat of adsorption at 303 K: -38.6 ± 2.1 kJ/mol; measured: -40 (Chen et al. 2024)" in text
    assert re.search(r"validation +1:24", text)


IN_ANOTHER_PROFILE = """
import sys
from aiida import load_profile, orm
from aiida.storage.sqlite_zip.backend import SqliteZipBackend
archive, uuid, report, labels = sys.argv[1:]
load_profile(SqliteZipBackend.create_profile(archive))
from aiida_mofmace.report.html import write_report
from aiida_mofmace.report.label_export import write_labels
from aiida_mofmace.report.labels import find_labels
write_report(orm.load_node(uuid), report)
with open(labels, "w", encoding="utf-8") as handle:
    write_labels(find_labels(), handle)
"""


def test_an_archive_gives_the_same_report_and_the_same_labels(
    run: orm.WorkChainNode, page: str, tmp_path: Path
) -> None:
    archive, report, there = tmp_path / "run.aiida", tmp_path / "report.html", tmp_path / "there.extxyz"
    create_archive([run], filename=archive)
    command = [sys.executable, "-W", "ignore", "-c", IN_ANOTHER_PROFILE, archive, run.uuid, report, there]
    subprocess.run([str(part) for part in command], check=True, timeout=120)
    other = report.read_text(encoding="utf-8")
    # PKs differ, and with them the order of what began at the same time; numbers do not.
    assert set(re.findall(r"-?\d+\.\d+ ± \d+\.\d+", other)) == set(re.findall(r"-?\d+\.\d+ ± \d+\.\d+", page))
    assert "19 labels were made and 3 could not be had" in other
    assert other.count("<svg") == page.count("<svg")
    here = io.StringIO()
    assert write_labels(find_labels(), here) == (19, [])
    assert there.read_text(encoding="utf-8") == here.getvalue()


def test_what_is_missing_is_said(aiida_profile) -> None:
    failed = fake_run("isotherm", rounds=1)
    text = render(collect(failed))
    reason = "finished with exit status 402: pressure_02 failed with exit status 306; see its report."
    assert re.search(r"The isotherm was not computed: MDGCMCIsothermWorkChain &lt;\d+&gt; " + re.escape(reason), text)
    assert "ended with exit status 340" in text
    assert "loading against step" in text.lower()
    assert Outline(text).open == []
    assert reason in summary(failed)


def test_a_run_that_goes_on_is_reported_as_far_as_it_is(aiida_profile) -> None:
    running = fake_run("running", rounds=1)
    data = collect(running)
    assert data["missing"]["isotherm"] == (
        "The isotherm was not computed: MDGCMCIsothermWorkChain has not started yet."
    )
    assert data["missing"].keys() == {"parity", "isotherm", "timeseries", "heat_of_adsorption"}
    assert Outline(render(data)).open == []


def test_a_process_that_gave_nothing(aiida_profile) -> None:
    node = orm.WorkChainNode()
    node.set_process_label("MofMaceWorkChain")
    node.set_process_state("excepted")
    node.set_exception("Traceback\nValueError: no")
    node.store()
    data = collect(node)
    assert data["missing"]["labels"] == (
        f"No label was made: LabelWorkChain was never started; MofMaceWorkChain <{node.pk}> excepted: ValueError: no."
    )
    assert Outline(render(data)).open == []
    assert "No label was made" in render(data)


def test_one_sample_has_no_error(aiida_profile) -> None:
    chain = orm.WorkChainNode()
    chain.set_process_label("MDGCMCIsothermWorkChain")
    chain.set_process_state("finished")
    chain.set_exit_status(701)
    chain.store()
    point = {**FakeRun._point(0, 1.0e4, 2.0), "loading_mol_per_kg_error": 0.0, "converged": False}
    points = [{**point, "effective_samples": 1.0}, {**point, "effective_samples": 2.0}]
    isotherm = orm.Dict({"temperature_K": 303.0, "gas": "CO2", "points": points}).store()
    isotherm.base.links.add_incoming(chain, LinkType.RETURN, "isotherm")
    assert [p["loading_mol_per_kg_error"] for p in collect(chain)["isotherm"]["points"]] == [None, 0.0]
    assert re.search(r"0\.1 bar +2\.00 mol/kg .*not converged", summary(chain))
    assert "finished with a warning, exit status 701" in render(collect(chain))


def test_a_part_alone_lacks_nothing_of_the_whole(aiida_profile) -> None:
    """An isotherm by itself has no labels and no validation; a run that never came to its labels has none either."""
    alone = FakeRun().process("MDGCMCIsothermWorkChain", None, "isotherm", {})
    text = summary(alone)
    assert "Labels" not in text
    assert "validated" not in text
    assert "The isotherm was not computed" in text
    whole = summary(FakeRun().process("MofMaceWorkChain", None, "run", {}))
    assert "Labels      0 made" in whole
    assert "The model was not validated" in whole
