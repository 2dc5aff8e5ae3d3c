"""Levels of theory and their hashes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from ase import Atoms

from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.workflows.cp2k_label_base import apply_scf_remedy, scf_remedies
from aiida_mofmace.workflows.protocols import resolve


def _reversed(value: Any) -> Any:
    return {key: _reversed(value[key]) for key in reversed(list(value))} if isinstance(value, dict) else value


def _changed(level: LevelOfTheory, path: str, value: Any) -> LevelOfTheory:
    content = level.to_dict()
    del content["hash"]
    section = content
    for key in path.split(".")[:-1]:
        section = section[key]
    section[path.rpartition(".")[2]] = value
    return LevelOfTheory.from_dict(content)


@pytest.mark.parametrize("name", LevelOfTheory.names())
def test_every_level_goes_through_a_node(aiida_profile: Any, name: str) -> None:
    level = LevelOfTheory.load(name)
    node = orm.Dict(level.to_dict()).store()
    again = LevelOfTheory.from_dict(orm.load_node(node.pk).get_dict())
    assert again == level
    assert again.hash == level.hash


def test_levels_differ() -> None:
    hashes = [LevelOfTheory.load(name).hash for name in LevelOfTheory.names()]
    assert len(set(hashes)) == len(hashes) == 3


@pytest.mark.parametrize("name", ["gfn1-xtb", "pbe-d3"])
def test_order_and_spelling_leave_the_hash(name: str) -> None:
    level = LevelOfTheory.load(name)
    content = _reversed(level.to_dict())
    content["cp2k_input"]["FORCE_EVAL"]["METHOD"] = "Quickstep"
    content["cp2k_input"]["FORCE_EVAL"]["DFT"]["SCF"]["EPS_SCF"] = "1E-7"
    assert LevelOfTheory.from_dict(content).hash == level.hash


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cp2k_input.GLOBAL.PRINT_LEVEL", "LOW"),
        ("cp2k_input.GLOBAL.WALLTIME", 100),
        ("cp2k_input.FORCE_EVAL.DFT.SCF.MAX_SCF", 7),
        ("cp2k_input.FORCE_EVAL.DFT.SCF.SCF_GUESS", "RESTART"),
        ("name", "another name"),
    ],
)
def test_what_leaves_energies_leaves_the_hash(path: str, value: Any) -> None:
    level = LevelOfTheory.load("pbe-d3")
    assert _changed(level, path, value).hash == level.hash


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cp2k_input.FORCE_EVAL.DFT.MGRID.CUTOFF", 300),
        ("cp2k_input.FORCE_EVAL.DFT.SCF.EPS_SCF", 1e-5),
        ("cp2k_input.FORCE_EVAL.DFT.XC.XC_FUNCTIONAL._", "BLYP"),
        ("cp2k_input.FORCE_EVAL.DFT.CHARGE", 1),
        ("cp2k_input.FORCE_EVAL.DFT.MULTIPLICITY", 3),
        ("kinds.O.BASIS_SET", "TZVP-MOLOPT-GTH"),
    ],
)
def test_what_changes_energies_changes_the_hash(path: str, value: Any) -> None:
    level = LevelOfTheory.load("pbe-d3")
    assert _changed(level, path, value).hash != level.hash


@pytest.mark.parametrize(("key", "value"), [("method", "GFN2-xTB"), ("accuracy", 1.0)])
def test_settings_of_tblite_change_the_hash(key: str, value: Any) -> None:
    level = LevelOfTheory.load("gfn1-xtb-tblite")
    assert level.tblite[key] != value
    assert _changed(level, f"tblite.{key}", value).hash != level.hash


@pytest.mark.parametrize("name", ["gfn1-xtb", "pbe-d3"])
def test_no_remedy_changes_the_level(name: str) -> None:
    level = LevelOfTheory.load(name)
    for remedy in scf_remedies(level.cp2k_input):
        if remedy.get("intermediate"):
            continue
        changed = _changed(level, "cp2k_input", apply_scf_remedy(level.cp2k_input, remedy))
        assert changed.cp2k_input != level.cp2k_input
        assert changed.hash == level.hash, remedy["name"]


def test_smearing_is_no_label_but_a_step_on_the_way() -> None:
    level = LevelOfTheory.load("pbe-d3")
    (remedy,) = [remedy for remedy in scf_remedies(level.cp2k_input) if remedy.get("intermediate")]
    assert "SMEAR" in remedy["scf"]
    assert _changed(level, "cp2k_input", apply_scf_remedy(level.cp2k_input, remedy)).hash != level.hash


def test_charge_makes_a_level_of_its_own(water: orm.StructureData) -> None:
    level = LevelOfTheory.load("pbe-d3")
    charged = level.with_charge(1, 2)
    assert charged.hash != level.hash
    assert charged.cp2k_parameters(water)["FORCE_EVAL"]["DFT"]["CHARGE"] == 1
    assert charged.cp2k_parameters(water)["FORCE_EVAL"]["DFT"]["MULTIPLICITY"] == 2
    assert charged.cp2k_parameters(water)["FORCE_EVAL"]["DFT"]["LSD"] == "T"
    assert level.with_charge(0, 1).hash == level.hash


def test_input_has_cell_and_kinds(water: orm.StructureData) -> None:
    level = LevelOfTheory.load("pbe-d3")
    before = copy.deepcopy(level.cp2k_input)
    subsystem = level.cp2k_parameters(water)["FORCE_EVAL"]["SUBSYS"]
    assert subsystem["CELL"] == {"A": "8.0 0.0 0.0", "B": "0.0 8.0 0.0", "C": "0.0 0.0 8.0", "PERIODIC": "XYZ"}
    assert [kind["_"] for kind in subsystem["KIND"]] == ["H", "O"]
    assert subsystem["KIND"][1]["POTENTIAL"] == "GTH-PBE-q6"
    assert level.cp2k_input == before
    assert "KIND" not in LevelOfTheory.load("gfn1-xtb").cp2k_parameters(water)["FORCE_EVAL"]["SUBSYS"]


def _structure(symbols: str, **options: Any) -> orm.StructureData:
    n_atoms = len(Atoms(symbols))
    positions = [[2.0 * i, 0, 0] for i in range(n_atoms)]
    return orm.StructureData(ase=Atoms(symbols, positions, cell=[9, 9, 9], **({"pbc": True} | options)))


@pytest.mark.parametrize(
    ("level", "structure", "message"),
    [
        ("pbe-d3", {"symbols": "UO2"}, "no basis set and potential for U"),
        ("gfn1-xtb", {"symbols": "UO2"}, "no parameters for U"),
        ("gfn1-xtb", {"symbols": "H2", "pbc": [True, True, False]}, "not periodic in x, y and z"),
        ("gfn1-xtb", {"symbols": "H2", "tags": [0, 1]}, "kinds H1 are tagged"),
        ("gfn1-xtb-tblite", {"symbols": "H2"}, "computed by tblite, not by CP2K"),
    ],
)
def test_refused_structures(aiida_profile: Any, level: str, structure: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LevelOfTheory.load(level).cp2k_parameters(_structure(**structure))


@pytest.mark.parametrize(
    ("symbols", "charge", "multiplicity", "message"),
    [
        ("OH", 0, None, "electrons at charge 0 is odd, which multiplicity 1 cannot be"),
        ("OH2", 0, 2, "electrons at charge 0 is even, which multiplicity 2 cannot be"),
        ("OH", -1, None, None),
        ("OH", 0, 2, None),
        ("NiO", 0, None, "Ni may have unpaired electrons; state labels.multiplicity"),
        ("NiO", 0, 1, None),
        ("NiO", 0, 3, None),
        ("ZnO", 0, None, None),
    ],
)
def test_spin_and_charge_of_a_protocol(
    aiida_profile: Any, symbols: str, charge: int, multiplicity: int | None, message: str | None
) -> None:
    section = {"charge": charge, "multiplicity": multiplicity, "kpoints": None}
    level = LevelOfTheory.from_protocol({"level": "pbe-d3", "labels": section})
    refusal = level.refusal(_structure(symbols))
    assert refusal is None if message is None else message in str(refusal)
    assert LevelOfTheory.from_dict(level.to_dict()) == level


def test_spins_by_site(aiida_profile: Any) -> None:
    """Two iron atoms up, two down; a frame of the doubled cell goes on with the same pattern."""
    section = {"charge": 0, "multiplicity": 1, "kpoints": None, "magnetization": {"Fe": [5, -5]}}
    level = LevelOfTheory.from_protocol({"level": "pbe-d3", "labels": section})
    structure = _structure("FeOFeO")
    parameters = level.cp2k_parameters(structure)
    assert parameters["FORCE_EVAL"]["DFT"]["LSD"] == "T"
    kinds = [
        (kind["_"], kind.get("ELEMENT"), kind.get("MAGNETIZATION"))
        for kind in parameters["FORCE_EVAL"]["SUBSYS"]["KIND"]
    ]
    assert kinds == [("O", None, None), ("Fe1", "Fe", 5.0), ("Fe2", "Fe", -5.0)]
    assert level.kind_names(structure) == ["Fe1", "O", "Fe2", "O"]
    assert level.kind_names(_structure("FeOFeOFeOFeO")) == ["Fe1", "O", "Fe2", "O"] * 2
    others = [LevelOfTheory.load("pbe-d3").with_charge(0, 1), level.with_magnetization({"Fe": [-5, 5]})]
    assert len({level.hash, *(other.hash for other in others)}) == 3
    assert LevelOfTheory.from_dict(level.to_dict()) == level


@pytest.mark.parametrize(
    ("symbols", "multiplicity", "magnetization", "message"),
    [
        ("FeO", None, {"Fe": 4}, "state labels.multiplicity"),
        ("FeO", 5, {"Fe": 4}, None),
        ("FeO", 3, {"Fe": 4}, "add up to 4 μB in this structure, multiplicity 3 needs 2"),
        ("FeOFeOFeO", 1, {"Fe": [4, -4]}, "add up to 4 μB"),
        ("FeOFeO", 1, {"Fe": [4, -4]}, None),
    ],
)
def test_spins_that_do_not_add_up(
    aiida_profile: Any, symbols: str, multiplicity: int | None, magnetization: Any, message: str | None
) -> None:
    section = {"charge": 0, "multiplicity": multiplicity, "kpoints": None, "magnetization": magnetization}
    refusal = LevelOfTheory.from_protocol({"level": "pbe-d3", "labels": section}).refusal(_structure(symbols))
    assert refusal is None if message is None else message in str(refusal)


def test_parallelisation_leaves_the_hash() -> None:
    """The resources of the jobs are no part of a level, and what CP2K is told of its processes no part of its hash."""
    levels = [
        LevelOfTheory.from_protocol(resolve("balanced", {"resources": {"cores": cores, "max_concurrent": cores}}))
        for cores in (1, 64)
    ]
    assert levels[0] == levels[1]
    level = levels[0].with_kpoints([2, 2, 2])
    for path, value in (
        ("GLOBAL.PREFERRED_DIAG_LIBRARY", "SCALAPACK"),
        ("GLOBAL.FFTW_PLAN_TYPE", "MEASURE"),
        ("FORCE_EVAL.DFT.KPOINTS.PARALLEL_GROUP_SIZE", 4),
        ("FORCE_EVAL.DFT.MGRID.RS_GRID", {"DISTRIBUTION_TYPE": "REPLICATED"}),
    ):
        assert _changed(level, f"cp2k_input.{path}", value).hash == level.hash, path


def test_k_points_make_a_level_of_their_own(water: orm.StructureData) -> None:
    section = {"charge": 0, "multiplicity": None, "kpoints": [2, 2, 1]}
    level, gamma = LevelOfTheory.from_protocol({"level": "pbe-d3", "labels": section}), LevelOfTheory.load("pbe-d3")
    assert level.hash != gamma.hash
    assert level.cp2k_parameters(water)["FORCE_EVAL"]["DFT"]["KPOINTS"] == {"SCHEME": "MONKHORST-PACK 2 2 1"}
    names = [remedy["name"] for remedy in scf_remedies(level.cp2k_input)]
    assert "orbital transformation" not in names
    assert len(names) == len(scf_remedies(gamma.cp2k_input)) - 1
    with pytest.raises(ValueError, match="give three numbers of at least 1"):
        gamma.with_kpoints([2, 0, 1])
    with pytest.raises(ValueError, match="no k-points"):
        LevelOfTheory.load("gfn1-xtb-tblite").with_kpoints([2, 2, 2])


@pytest.mark.cp2k
def test_every_basis_set_and_potential_is_in_the_installed_files() -> None:
    level = LevelOfTheory.load("pbe-d3")
    folder = Path("/usr/share/cp2k")
    if not folder.is_dir():
        pytest.skip("CP2K'S DATA ARE NOT INSTALLED: install them with: apt-get install cp2k-data")
    for keyword, file in (("BASIS_SET", "BASIS_MOLOPT"), ("POTENTIAL", "GTH_POTENTIALS")):
        lines = (folder / file).read_text(encoding="utf-8").splitlines()
        known = {(words[0], name) for words in map(str.split, lines) if words for name in words[1:]}
        assert [element for element, kind in level.kinds.items() if (element, kind[keyword]) not in known] == []


def test_refused_levels() -> None:
    with pytest.raises(ValueError, match="unknown level of theory 'pbe'; known are gfn1-xtb, gfn1-xtb-tblite, pbe-d3"):
        LevelOfTheory.load("pbe")
    content = LevelOfTheory.load("pbe-d3").to_dict()
    content["cp2k_input"]["FORCE_EVAL"]["DFT"]["MGRID"]["CUTOFF"] = 300
    with pytest.raises(ValueError, match="does not belong to these settings"):
        LevelOfTheory.from_dict(content)
    with pytest.raises(ValueError, match=r"unknown keys \['basis'\], missing keys \['program'\]"):
        LevelOfTheory.from_dict({"name": "x", "basis": 1})
    with pytest.raises(ValueError, match="must be one of cp2k, tblite"):
        LevelOfTheory.from_dict({"name": "x", "program": "vasp"})
    with pytest.raises(ValueError, match="has no section tblite"):
        LevelOfTheory.from_dict({"name": "x", "program": "tblite"})
