"""Levels of theory: the settings that make two energies comparable, by name from ``protocols/levels``."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiida import orm
from ase.data import atomic_numbers

__all__ = ["LevelOfTheory"]

_FOLDER = Path(__file__).parent.parent / "protocols" / "levels"
_PROGRAMS = ("cp2k", "tblite")
_LAST_XTB_ELEMENT = 86


@dataclass(frozen=True)
class LevelOfTheory:
    """What is computed, apart from the structure.

    :param name: what a person calls it, e.g. "PBE-D3(BJ)/DZVP-MOLOPT-SR-GTH/600Ry"
    :param program: "cp2k" or "tblite"
    :param cp2k_input: input sections of CP2K without cell, kinds and coordinates; empty for another program
    :param tblite: method and accuracy of tblite; empty for another program
    :param kinds: keywords of the &KIND section by element; empty where the method needs none
    :param not_energy: dotted paths below ``cp2k_input`` that leave energies, forces and stress as they are
    :param open_shell: elements with which a multiplicity must be stated; empty once it is
    :param magnetization: moments in μB from which the field of spins begins, by element: one after the other for its
        atoms in their order, and again from the first; ``{"Fe": [5, -5]}`` is antiferromagnetic
    :raises ValueError: if the program is unknown or its settings are missing
    """

    name: str
    program: str
    cp2k_input: dict[str, Any] = field(default_factory=dict)
    tblite: dict[str, Any] = field(default_factory=dict)
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_energy: tuple[str, ...] = ()
    open_shell: tuple[str, ...] = ()
    magnetization: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.program not in _PROGRAMS:
            raise ValueError(
                f"program {self.program!r} of level {self.name!r}; it must be one of {', '.join(_PROGRAMS)}"
            )
        if not (self.cp2k_input if self.program == "cp2k" else self.tblite):
            section = "cp2k_input" if self.program == "cp2k" else "tblite"
            raise ValueError(f"level {self.name!r} has no section {section}")

    @staticmethod
    def names() -> list[str]:
        """Names of the levels that come with the package."""
        return sorted(path.stem for path in _FOLDER.glob("*.yaml"))

    @classmethod
    def load(cls, name: str) -> LevelOfTheory:
        """Return a level by the name of its file, e.g. "gfn1-xtb" or "pbe-d3".

        :raises ValueError: if there is none of that name
        """
        if name not in cls.names():
            raise ValueError(f"unknown level of theory {name!r}; known are {', '.join(cls.names())}")
        return cls.from_dict(yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))

    @classmethod
    def from_protocol(cls, parameters: Mapping[str, Any]) -> LevelOfTheory:
        """Return the level of a protocol, with charge, spins and k-points of its section ``labels``.

        :param parameters: resolved protocol
        :raises ValueError: if there is no such level, or its program has no such setting
        """
        level, section = cls.load(parameters["level"]), parameters.get("labels", {})
        charge, multiplicity, mesh = (section.get(key) for key in ("charge", "multiplicity", "kpoints"))
        if charge or multiplicity is not None:
            level = level.with_charge(charge or 0, 1 if multiplicity is None else multiplicity)
        if section.get("magnetization"):
            level = level.with_magnetization(section["magnetization"])
        return level if mesh is None else level.with_kpoints(mesh)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LevelOfTheory:
        """Return a level from what :meth:`to_dict` gave or what stands in a level's file.

        :raises ValueError: if keys are missing or unknown, or a hash is given that the settings do not have
        """
        known = {
            "name",
            "program",
            "cp2k_input",
            "tblite",
            "kinds",
            "not_energy",
            "open_shell",
            "magnetization",
            "hash",
        }
        unknown, missing = sorted(set(content) - known), sorted({"name", "program"} - set(content))
        if unknown or missing:
            raise ValueError(
                f"level of theory: unknown keys {unknown}, missing keys {missing}; known are {sorted(known)}"
            )
        level = cls(
            name=str(content["name"]),
            program=str(content["program"]),
            cp2k_input=copy.deepcopy(dict(content.get("cp2k_input") or {})),
            tblite=dict(content.get("tblite") or {}),
            kinds=copy.deepcopy(dict(content.get("kinds") or {})),
            not_energy=tuple(content.get("not_energy") or ()),
            open_shell=tuple(content.get("open_shell") or ()),
            magnetization=copy.deepcopy(dict(content.get("magnetization") or {})),
        )
        if content.get("hash") not in (None, level.hash):
            raise ValueError(
                f"level of theory {level.name!r}: the hash {content['hash']} does not belong to these settings; "
                "leave the hash out after a change of settings"
            )
        return level

    def to_dict(self) -> dict[str, Any]:
        """Return everything, the hash included: the content of the ``level`` input of the label calculations."""
        return {
            "name": self.name,
            "program": self.program,
            "cp2k_input": copy.deepcopy(self.cp2k_input),
            "tblite": dict(self.tblite),
            "kinds": copy.deepcopy(self.kinds),
            "not_energy": list(self.not_energy),
            "open_shell": list(self.open_shell),
            "magnetization": copy.deepcopy(self.magnetization),
            "hash": self.hash,
        }

    @property
    def summary(self) -> dict[str, str]:
        """Name, program and hash: what every label carries."""
        return {"name": self.name, "program": self.program, "hash": self.hash}

    @property
    def hash(self) -> str:
        """Digest of the settings that change energies, charge and multiplicity included, whatever the order of keys."""
        settings = copy.deepcopy(self.cp2k_input)
        for path in self.not_energy:
            _remove(settings, path.split("."))
        content = {"program": self.program, "cp2k": settings, "tblite": self.tblite, "kinds": self.kinds}
        if self.magnetization:
            content["magnetization"] = self.magnetization
        text = json.dumps(_canonical(content), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_charge(self, charge: int, multiplicity: int = 1) -> LevelOfTheory:
        """Return this level for another charge and spin; its hash differs, for such energies are not to be mixed.

        :param charge: total charge of the cell in elementary charges
        :param multiplicity: 2 S + 1
        :raises ValueError: if the program has no such setting here or the multiplicity is below 1
        """
        if self.program != "cp2k" or multiplicity < 1:
            raise ValueError(f"no charge {charge} and multiplicity {multiplicity} with {self.program}")
        settings: dict[str, Any] = {"CHARGE": charge, "MULTIPLICITY": multiplicity}
        return self._with_dft(settings | ({"LSD": "T"} if multiplicity > 1 else {}), open_shell=[])

    def with_kpoints(self, mesh: Sequence[int]) -> LevelOfTheory:
        """Return this level on a Monkhorst-Pack mesh; its hash differs.

        :param mesh: number of k-points along each reciprocal lattice vector, three numbers of at least 1
        :raises ValueError: if the program has no such setting here or the mesh is none
        """
        numbers = [int(number) for number in mesh]
        if self.program != "cp2k" or len(numbers) != 3 or min(numbers) < 1:
            raise ValueError(f"no k-points {list(mesh)} with {self.program}; give three numbers of at least 1")
        return self._with_dft({"KPOINTS": {"SCHEME": "MONKHORST-PACK {} {} {}".format(*numbers)}})

    def with_magnetization(self, moments: Mapping[str, float | Sequence[float]]) -> LevelOfTheory:
        """Return this level with moments on its atoms to begin with; its hash differs, for so does the state reached.

        :param moments: in μB by element, a number for all its atoms or several as of :attr:`magnetization`
        :raises ValueError: if the program has no such setting here or an element is unknown
        """
        unknown = sorted(set(moments) - set(self.kinds))
        if self.program != "cp2k" or unknown:
            raise ValueError(f"no magnetization of {', '.join(unknown or moments)} at {self.name}")
        listed = {
            element: [float(value)] if isinstance(value, (int, float)) else [float(moment) for moment in value]
            for element, value in moments.items()
        }
        return self._with_dft({"LSD": "T"}, magnetization=listed)

    def moments(self, structure: orm.StructureData) -> list[float]:
        """Return the moment in μB with which each atom of a structure begins."""
        count: Counter[str] = Counter()
        found = []
        for site in structure.sites:
            element = structure.get_kind(site.kind_name).symbol
            pattern = self.magnetization.get(element, [0.0])
            found.append(pattern[count[element] % len(pattern)])
            count[element] += 1
        return found

    def kind_names(self, structure: orm.StructureData) -> list[str]:
        """Return the name of CP2K's section &KIND for each atom: the element, with a number where moments differ."""
        names = []
        for site, moment in zip(structure.sites, self.moments(structure), strict=True):
            element = structure.get_kind(site.kind_name).symbol
            values = sorted(set(self.magnetization.get(element, [])), reverse=True)
            names.append(f"{element}{values.index(moment) + 1}" if len(values) > 1 else element)
        return names

    def _with_dft(self, settings: Mapping[str, Any], **changes: Any) -> LevelOfTheory:
        """Return this level with other keywords in CP2K's section &DFT."""
        content = self.to_dict() | changes
        content["cp2k_input"]["FORCE_EVAL"]["DFT"].update(settings)
        return self.from_dict({key: value for key, value in content.items() if key != "hash"})

    def refusal(self, structure: orm.StructureData) -> str | None:
        """Return why a structure cannot be labelled at this level, None if it can."""
        if not all(structure.pbc):
            return "the structure is not periodic in x, y and z; put it into a cell and set pbc"
        odd = [kind.name for kind in structure.kinds if kind.name != kind.symbol or kind.has_vacancies]
        if odd:
            return f"kinds {', '.join(odd)} are tagged or partially occupied; zero the tags and order the structure"
        elements = [kind.symbol for kind in structure.kinds]
        missing = [element for element in elements if self.kinds and element not in self.kinds]
        if missing:
            return f"level {self.name} has no basis set and potential for {', '.join(missing)}"
        heavy = [element for element in elements if atomic_numbers[element] > _LAST_XTB_ELEMENT]
        if heavy and not self.kinds:
            return f"level {self.name} has no parameters for {', '.join(heavy)}"
        return self._refuse_spin(structure)

    def _refuse_spin(self, structure: orm.StructureData) -> str | None:
        """Return what is wrong with charge and multiplicity, None if nothing is.

        The cores that the method leaves out hold pairs of electrons only, so all electrons tell odd from even.
        """
        if self.program != "cp2k":
            return None
        metals = sorted({kind.symbol for kind in structure.kinds} & set(self.open_shell))
        if metals:
            return (
                f"{', '.join(metals)} may have unpaired electrons; state labels.multiplicity (1 if there are none, or "
                "if labels.magnetization makes them cancel)"
            )
        method = self.cp2k_input["FORCE_EVAL"].get("DFT", {})
        charge, multiplicity = int(method.get("CHARGE", 0)), int(method.get("MULTIPLICITY", 1))
        total = sum(self.moments(structure))
        if self.magnetization and abs(abs(total) - (multiplicity - 1)) > 1e-6:
            return (
                f"the moments of labels.magnetization add up to {total:g} μB in this structure, multiplicity "
                f"{multiplicity} needs {multiplicity - 1}"
            )
        symbols = [structure.get_kind(site.kind_name).symbol for site in structure.sites]
        electrons = sum(atomic_numbers[symbol] for symbol in symbols) - charge
        if (electrons + multiplicity) % 2 == 1:
            return None
        parity = "odd" if electrons % 2 else "even"
        return (
            f"the number of electrons at charge {charge} is {parity}, which multiplicity {multiplicity} cannot be; "
            "state labels.charge or labels.multiplicity"
        )

    def cp2k_parameters(self, structure: orm.StructureData) -> dict[str, Any]:
        """Return CP2K's input for one structure, with cell and kinds; aiida-cp2k adds the coordinates.

        :param structure: periodic structure, kinds named as their elements
        :raises ValueError: if this level is no level of CP2K or has no basis set or potential for an element
        """
        if self.program != "cp2k":
            raise ValueError(f"level {self.name!r} is computed by {self.program}, not by CP2K")
        refusal = self.refusal(structure)
        if refusal:
            raise ValueError(refusal)
        parameters = copy.deepcopy(self.cp2k_input)
        subsystem = parameters.setdefault("FORCE_EVAL", {}).setdefault("SUBSYS", {})
        cell = {
            letter: "{!r} {!r} {!r}".format(*map(float, row)) for letter, row in zip("ABC", structure.cell, strict=True)
        }
        subsystem["CELL"] = {**cell, "PERIODIC": "XYZ"}
        if self.kinds:
            subsystem["KIND"] = self._kind_sections(structure)
        return parameters

    def _kind_sections(self, structure: orm.StructureData) -> list[dict[str, Any]]:
        """Return CP2K's sections &KIND, in the order of the elements."""
        symbols = [structure.get_kind(site.kind_name).symbol for site in structure.sites]
        kinds = sorted(set(zip(symbols, self.kind_names(structure), self.moments(structure), strict=True)))
        sections = []
        for element, name, moment in sorted(kinds, key=lambda kind: atomic_numbers[kind[0]]):
            own = {"ELEMENT": element, "MAGNETIZATION": moment} if element in self.magnetization else {}
            sections.append({"_": name, **self.kinds[element], **own})
        return sections


def _remove(settings: dict[str, Any], path: list[str]) -> None:
    """Remove what stands at a path, if anything does."""
    for key in path[:-1]:
        inner = settings.get(key)
        if not isinstance(inner, dict):
            return
        settings = inner
    settings.pop(path[-1], None)


def _canonical(value: Any) -> Any:
    """Return a value in one spelling: keys in capitals, switches as T or F, numbers as floats, words in capitals."""
    if isinstance(value, Mapping):
        return {str(key).upper(): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, bool):
        return "T" if value else "F"
    try:
        return float(value)
    except (TypeError, ValueError):
        return {"TRUE": "T", "FALSE": "F"}.get(str(value).upper().strip("."), str(value).upper())
