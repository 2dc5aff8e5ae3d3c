"""Everything that is known of one label, as text."""

from __future__ import annotations

from aiida import orm

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.report.label_origins import datasets_with_label, reasons_of_labels, validation_datasets

__all__ = ["describe_label"]


def describe_label(label: DftLabelData) -> str:
    """Return level, energy, forces, how the label was made and rescued, and what holds it.

    :param label: a stored label
    """
    level = label.level_of_theory
    version = label.base.attributes.get("program_version", None)
    rows = [
        ("label", f"{label.uuid} <{label.pk}>"),
        ("formula", f"{label.formula}, {label.n_atoms} atoms"),
        ("level of theory", f"{level['name']} (settings {level['hash']})"),
        ("program", f"{level['program']}{f', {version}' if version else ''}"),
        ("energy", f"{label.energy:.6f} eV, {label.energy / label.n_atoms:.6f} eV/atom"),
        ("largest force", f"{label.max_force:.4f} eV/Å"),
        *_measured(label),
        ("converged", "yes" if label.converged else "NO"),
        ("rescued by", "; ".join(label.flags) or "nothing, it needed no help"),
        ("flagged", "; ".join(reasons_of_labels().get(label.uuid, ())) or "no"),
        *[("warning", warning) for warning in label.warnings],
        *_provenance(label),
    ]
    return "\n".join([*(f"{name:<18}{text}" for name, text in rows), "", *_forces(label)])


def _measured(label: DftLabelData) -> list[tuple[str, str]]:
    distance, gap, seconds = label.minimum_distance, label.band_gap, label.wall_seconds
    steps = label.base.attributes.get("scf_steps", None)
    rows = [
        ("nearest atoms", None if distance is None else f"{distance:.3f} Å"),
        ("band gap", None if gap is None else f"{gap:.3f} eV"),
        ("SCF steps", None if steps is None else str(steps)),
        ("wall time", None if seconds is None else f"{seconds:.1f} s"),
        ("origin", label.origin),
    ]
    if label.stress is not None:
        rows.append(("pressure", f"{-label.stress.trace() / 3:.6f} eV/Å³"))
    return [(name, text) for name, text in rows if text is not None]


def _provenance(label: DftLabelData) -> list[tuple[str, str]]:
    creator, structure = label.creator, label.structure
    rows = []
    if creator is not None:
        cached = ", taken from the cache" if creator.base.caching.is_created_from_cache else ""
        rows.append(("made by", f"{creator.process_label} {creator.uuid} <{creator.pk}>{cached}"))
        caller = creator.caller
        while caller is not None:
            rows.append(("called by", f"{caller.process_label} <{caller.pk}>"))
            caller = caller.caller
    if structure is not None:
        rows.append(("structure", f"{structure.uuid} <{structure.pk}>"))
    validating = validation_datasets()
    held = [
        f"{uuid} <{pk}>, frame {index}{', of a validation' if uuid in validating else ''}"
        for pk, uuid, index in datasets_with_label(label.uuid)
    ]
    return rows + ([("dataset", text) for text in held] or [("dataset", "none")])


def _forces(label: DftLabelData) -> list[str]:
    """Return a table of positions, where they are known, and forces."""
    structure: orm.StructureData | None = label.structure
    positions = [site.position for site in structure.sites] if structure is not None else None
    head = f"{'':>5} {'':2}{'position (Å)':^33}{'force (eV/Å)':^33}"
    rows = [head]
    for index, (symbol, force) in enumerate(zip(label.symbols, label.forces, strict=True)):
        place = "".join(f"{x:11.5f}" for x in positions[index]) if positions else " " * 33
        rows.append(f"{index:>5} {symbol:2}{place}{''.join(f'{x:11.5f}' for x in force)}")
    return rows
