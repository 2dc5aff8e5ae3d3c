"""A stored provenance graph with the shape of a finished run of the main job, so that reports can be built in seconds.

The nodes are real, the numbers are drawn: nothing here is a result. ``python -m tests.report.fake_run report.html``
writes a report to look at.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ProcessState
from numpy.typing import NDArray

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.model import MaceModelData

CIF = Path(__file__).parents[2] / "examples" / "MIL-120_primitive_40atoms.cif"
LEVEL = {"name": "GFN1-xTB", "hash": "5f0c9d1e2a7b", "program": "cp2k"}
PRESSURES = (2.0e3, 9.6e3, 3.0e4, 1.0e5)
LOADINGS = (1.21, 2.37, 3.02, 3.71)
UFF = [
    {
        "pressure_Pa": pressure,
        "loading_mol_per_kg": loading,
        "loading_mol_per_kg_error": 0.07,
        "loading_per_cell": loading * 0.4941,
        "loading_per_cell_error": 0.03,
        "isosteric_heat_kJ_per_mol": 52.3,
        "isosteric_heat_error_kJ_per_mol": 1.1,
    }
    for pressure, loading in ((2.0e3, 4.1), (1.0e5, 4.87))
]
START = datetime(2026, 11, 20, 9, 30, tzinfo=timezone.utc)


@dataclass
class FakeRun:
    """Builds the graph call by call, with a clock that goes on as the calls say.

    :param seed: of every number drawn
    """

    seed: int = 7
    minutes: float = 0.0
    times: dict[int, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.atoms = ase.io.read(CIF)
        self.structure = orm.StructureData(ase=self.atoms)
        self.structure.label = "MIL-120_primitive_40atoms"
        self.structure.store()

    # ------------------------------------------------------------------------------------------------ processes

    def process(
        self,
        label: str,
        parent: orm.WorkChainNode | None,
        call_label: str,
        inputs: dict[str, orm.Data],
        *,
        minutes: float = 0.0,
        start: float | None = None,
        exit_status: int | None = 0,
        message: str | None = None,
    ) -> Any:
        """Store a process that has ended (or is running, if ``exit_status`` is None)."""
        is_job = label.endswith("Calculation")
        node = (orm.CalcJobNode if is_job else orm.WorkChainNode)(label=call_label if parent is None else "")
        node.set_process_label(label)
        node.set_process_state(ProcessState.RUNNING if exit_status is None else ProcessState.FINISHED)
        if exit_status is not None:
            node.set_exit_status(exit_status)
        if message:
            node.set_exit_message(message)
        node.base.attributes.set("version", {"core": "2.9.4", "plugin": "0.1.0"})
        if parent is not None:
            node.base.links.add_incoming(parent, LinkType.CALL_CALC if is_job else LinkType.CALL_WORK, call_label)
        for name, data in inputs.items():
            data.store()
            node.base.links.add_incoming(data, LinkType.INPUT_CALC if is_job else LinkType.INPUT_WORK, name)
        node.store()
        begin = self.minutes if start is None else start
        self.times[node.pk] = (begin, begin + minutes)
        return node

    def create(self, job: orm.CalcJobNode, **outputs: orm.Data) -> None:
        for label, data in outputs.items():
            data.base.links.add_incoming(job, LinkType.CREATE, label)
            data.store()

    def give(self, chain: orm.WorkChainNode, **outputs: orm.Data) -> None:
        for label, data in outputs.items():
            data.store().base.links.add_incoming(chain, LinkType.RETURN, label)

    def log(self, node: orm.ProcessNode, message: str, level: str = "REPORT") -> None:
        orm.Log(
            START + timedelta(minutes=self.times[node.pk][0]),
            "aiida.orm",
            level,
            node.pk,
            f"[{node.pk}|X|y]: {message}",
        )

    def set_times(self) -> None:
        """Give every process the times that its calls said."""
        for pk, (first, last) in self.times.items():
            node = orm.load_node(pk)
            if node.is_terminated:
                node.seal()
            model = node.backend_entity.bare_model
            model.ctime, model.mtime = START + timedelta(minutes=first), START + timedelta(minutes=last)

    # ------------------------------------------------------------------------------------------------- the rooms

    def model(self, name: str, kind: str) -> MaceModelData:
        """Return a model node whose file is no model: only its attributes are read here."""
        node = MaceModelData(file=io.BytesIO(name.encode()), filename="model.model")
        attributes = {
            "sha256": f"{self.rng.integers(2**63):016x}" * 4,
            "elements": ["H", "C", "O", "Al"],
            "r_max": 5.0,
            "dtype": "float32",
            "heads": ["Default"] if kind == "foundation" else ["pt_head", "Default"],
            "atomic_energies": {"Default": {"H": -10.9, "C": -48.9, "O": -115.9, "Al": -19.0}},
            "mace_version": "0.3.16",
            "n_parameters": 47_312,
            "kind": kind,
            "name": name,
        }
        node.base.attributes.set_many(attributes)
        node.label = name
        return node

    def sampling(self, parent: orm.WorkChainNode, name: str, minutes: float) -> None:
        chain = self.process("SamplingWorkChain", parent, name, {"structure": self.structure}, minutes=minutes)
        self.log(chain, "4 MD runs: 300, 500 K x 0, 4 CO2")
        for temperature in (300, 500):
            for loading in (0, 4):
                job = self.process(
                    "MaceMdCalculation", chain, f"md_{temperature}k_{loading}", {"seed": orm.Int(loading)}, minutes=0.3
                )
                self.create(job, results=orm.Dict({"mean_temperature": float(temperature)}))
        if name == "sampling":
            self.give(chain, uff_isotherm=orm.Dict({"temperature_K": 303.0, "gas": "CO2", "points": UFF}))
        self.minutes += minutes

    def selection(self, parent: orm.WorkChainNode, name: str, n_dataset: int, n_selected: int) -> None:
        layer = self.process("DiversitySelectBaseWorkChain", parent, name, {}, minutes=0.4)
        job = self.process(
            "DiversitySelectCalculation",
            layer,
            "iteration_01",
            {"parameters": orm.Dict({"n_select": n_selected, "method": "kmeans"})},
            minutes=0.4,
        )
        centres = self.rng.normal(scale=22.0, size=(7, 2))
        pool = np.concatenate([c + self.rng.normal(scale=(5, 3), size=(90, 2)) for c in centres])
        dataset = self.rng.permutation(pool)[:n_dataset] + self.rng.normal(scale=0.7, size=(n_dataset, 2))
        chosen = self.rng.permutation(pool)[:n_selected]
        node = orm.ArrayData()
        node.set_array("xy", np.concatenate([pool, dataset, chosen]))
        kinds = [np.full(len(part), code, dtype=np.int8) for code, part in enumerate((pool, dataset, chosen))]
        node.set_array("kind", np.concatenate(kinds))
        coverage = {"cells": 60, "selected_cells": 57, "random_cells_mean": 41.3, "random_cells_std": 2.4}
        coverage |= {"covering_radius": 1.361, "random_covering_radius": 1.774}
        comparison = {"kmeans": {"selected_cells": 57, "covering_radius": 1.361}}
        comparison["fps"] = {"selected_cells": 55, "covering_radius": 1.083}
        content = {"pool": len(pool), "coverage": coverage, "comparison": comparison, "map": {"left_out": 12}}
        content |= {"refused": {"duplicate": 4, "too_close": 0}, "quota_shortfalls": {"*_3CO2": 2}}
        content |= {"without_quota": {"uff_303K_100000Pa_4CO2": 17}}
        self.create(job, map=node, results=orm.Dict(content))
        self.minutes += 0.4

    def labels(self, parent: orm.WorkChainNode, name: str, count: int, failed: int) -> list[DftLabelData]:
        structures = {f"structures__frame_{i:04d}": self._frame() for i in range(count)}
        minutes = 0.09 * count
        chain = self.process("LabelWorkChain", parent, name, structures, minutes=minutes)
        self.log(chain, f"{count} structures at {LEVEL['name']}, at most 2 at once")
        made, failures = [], {}
        for index, (port, structure) in enumerate(structures.items()):
            key = port.removeprefix("structures__")
            bad = index < failed
            status, message = (410, "the SCF did not converge in 300 steps") if bad else (0, None)
            base = self.process(
                "Cp2kLabelBaseWorkChain",
                chain,
                f"label_{index:04d}",
                {"structure": structure},
                minutes=0.04,
                start=self.minutes + 0.09 * index,
                exit_status=status,
                message=message,
            )
            if bad:
                failures[key] = {"reason": message, "exit_status": status, "uuid": base.uuid}
                self.log(base, f"{message}; giving up", "WARNING")
                continue
            job = self.process("Cp2kLabelCalculation", base, "iteration_01", {"structure": structure}, minutes=0.03)
            label = DftLabelData(
                energy=-2745.0 + self.rng.normal(scale=0.6),
                forces=self.rng.normal(scale=0.9, size=(len(self.atoms), 3)),
                level_of_theory=LEVEL,
                symbols=self.atoms.get_chemical_symbols(),
                stress=self.rng.normal(scale=0.01, size=(3, 3)),
            )
            self.create(job, label=label)
            self.give(base, label=label)
            self.give(chain, **{f"labels__{key}": label})
            made.append(label)
        self.give(chain, failures=orm.Dict(failures), flagged=orm.Dict(self._flagged(made) if failed > 1 else {}))
        self.minutes += minutes
        return made

    def _flagged(self, made: list[DftLabelData]) -> dict[str, Any]:
        """Return what the sanity filter would say, had the last label a great force."""
        reason = "a force of 61.50 eV/Å is above 50 eV/Å"
        return {f"frame_{len(made) + 1:04d}": {"label": made[-1].uuid, "reasons": [reason], "left_out": True}}

    def _frame(self) -> orm.StructureData:
        atoms = self.atoms.copy()
        atoms.rattle(0.05, rng=self.rng)
        return orm.StructureData(ase=atoms)

    def committee(self, parent: orm.WorkChainNode, name: str, median: float) -> None:
        parameters = orm.Dict({"window": [0.06, 0.24], "device": "cpu"})
        layer = self.process("CommitteeBaseWorkChain", parent, name, {}, minutes=0.5)
        inputs = {"parameters": parameters}
        self.process("CommitteeCalculation", layer, "iteration_01", inputs, exit_status=301, message="it was killed")
        job = self.process("CommitteeCalculation", layer, "iteration_02", inputs, minutes=0.5)
        node = orm.ArrayData()
        node.set_array("sigma_max", self.rng.lognormal(np.log(median), 0.55, size=900))
        self.create(job, predictions=node, results=orm.Dict({"n_frames": 900}))
        self.minutes += 0.5

    def training(self, parent: orm.WorkChainNode, name: str) -> None:
        chain = self.process("FineTuneCommitteeWorkChain", parent, name, {}, minutes=1.6)
        self.log(chain, "4 members, each with its own seed and its own training set")
        versions = {"python": "3.11.2", "torch": "2.13.0", "mace": "0.3.16", "ase": "3.29.0", "numpy": "2.4.6"}
        for seed in range(4):
            member = self.process("FineTuneWorkChain", chain, f"seed_{seed}", {}, minutes=0.4)
            job = self.process("FineTuneCalculation", member, "iteration_01", {"seed": orm.Int(seed)}, minutes=0.4)
            errors = {"n_frames": 2, "energy_mae_mev_per_atom": 2.0 + seed, "force_mae_mev_per_ang": 60.0 + seed}
            results = {
                "epochs": 40,
                "best_epoch": 30 + seed,
                "stopped_by": "patience",
                "errors": {"Default": {"train": None, "valid": None, "test": errors}},
                "replay_before": {**errors, "force_mae_mev_per_ang": 150.0},
                "replay_after": {**errors, "force_mae_mev_per_ang": 160.0 + seed},
                "versions": versions,
            }
            self.create(job, results=orm.Dict(results))
        self.minutes += 1.6

    def active_learning(self, parent: orm.WorkChainNode, rounds: int) -> orm.Dict:
        start = self.minutes
        chain = self.process("ActiveLearningWorkChain", parent, "active_learning", {"structure": self.structure})
        rows = []
        for index in range(rounds):
            self.training(chain, f"train_{index:02d}")
            self.sampling(chain, f"explore_{index:02d}", 0.9)
            median = 0.14 * 0.62**index
            self.committee(chain, f"committee_{index:02d}", median)
            rows.append(self._round(index, median))
            if index + 1 < rounds:
                self.selection(chain, f"select_{index + 1:02d}", 8 + 5 * index, 6)
                self.labels(chain, f"label_{index + 1:02d}", 6, failed=1 if index == 0 else 0)
        self.times[chain.pk] = (start, self.minutes)
        curve = orm.Dict({"rounds": rows})
        self.give(chain, learning_curve=curve, stop_reason=orm.Str("max_rounds"))
        return curve

    @staticmethod
    def _round(index: int, median: float) -> dict[str, Any]:
        return {
            "round": index,
            "n_labels": (8, 13, 19)[index],
            "n_failed": 2 if index == 0 else 1,
            "n_train": (6.5, 10.5, 15)[index],
            "force_mae_mev_per_ang": 96.0 * 0.66**index + 18,
            "energy_mae_mev_per_atom": 3.1 * 0.6**index,
            "sigma_max_mean": median * 1.16 / 0.62 if index else None,
            "sigma_max_q99": median * 3.4 / 0.62 if index else None,
            "candidates": 560 - 150 * index if index else None,
            "below": 90 if index else None,
            "inside": 560 - 150 * index if index else None,
            "above": 100 if index else None,
        }

    def parity(self, energy_error: float, force_error: float, shift: float, n_models: int) -> orm.ArrayData:
        loadings = np.repeat([0, 1, 4], 14)
        n_atoms = len(self.atoms) + 3 * loadings
        total = int(n_atoms.sum())
        generator = np.random.default_rng(11)
        energies = -68.0 * n_atoms + generator.normal(scale=0.006, size=len(n_atoms)) * n_atoms
        forces = generator.laplace(scale=0.8, size=(total, 3))
        node = orm.ArrayData()
        node.set_array("offsets", np.concatenate([[0], np.cumsum(n_atoms)]))
        node.set_array("loadings", loadings)
        node.set_array("reference_energies", energies)
        node.set_array("reference_forces", forces)
        errors = self.rng.normal(scale=energy_error, size=(n_models, len(n_atoms))) + shift
        node.set_array("energies", energies + errors * n_atoms)
        noise = self.rng.normal(scale=force_error, size=(n_models, total, 3)).astype(np.float32)
        node.set_array("forces", forces.astype(np.float32) * np.float32(1 - 0.3 * force_error) + noise)
        return node

    def validation(self, parent: orm.WorkChainNode) -> dict[str, orm.ArrayData]:
        chain = self.process("ValidationWorkChain", parent, "validation", {"structure": self.structure}, minutes=1.4)
        parities = {
            "parity_before": self.parity(0.004, 0.21, 0.003, n_models=1),
            "parity_after": self.parity(0.0011, 0.06, 0.0, n_models=4),
        }
        self.give(chain, **parities)
        self.minutes += 1.4
        return parities

    def isotherm(self, parent: orm.WorkChainNode, exit_status: int = 0) -> dict[str, orm.Dict]:
        message = None if exit_status == 0 else "pressure_02 failed with exit status 306; see its report"
        chain = self.process(
            "MDGCMCIsothermWorkChain",
            parent,
            "isotherm",
            {"pressures": orm.List(list(PRESSURES))},
            minutes=3.6,
            exit_status=exit_status,
            message=message,
        )
        points = []
        for index, (pressure, loading) in enumerate(zip(PRESSURES, LOADINGS, strict=True)):
            walk = self._walk(loading * 0.494)
            for chunk in range(2):
                parameters = orm.Dict({"pressure": pressure, "temperature": 303.0})
                job = self.process(
                    "MdGcmcCalculation", chain, f"pressure_{index:02d}_chunk_{chunk}", {"parameters": parameters}
                )
                self.create(job, timeseries=self._series(*walk, until=5000 * (chunk + 1)), results=orm.Dict({}))
            points.append(self._point(index, pressure, loading))
        self.minutes += 3.6
        if exit_status:
            return {}
        shared = {"temperature_K": 303.0, "gas": "CO2", "framework_mass_amu": 494.1, "cell_volume_A3": 528.0}
        heat = {
            "temperature_K": 303.0,
            "value_kJ_per_mol": -38.6,
            "error_kJ_per_mol": 2.1,
            "energy_loaded_eV": -3031.412,
            "energy_framework_eV": -2746.231,
            "energy_gas_eV": -284.807,
            "energy_loaded_error_eV": 0.019,
            "energy_framework_error_eV": 0.011,
            "energy_gas_error_eV": 0.001,
            "n_molecules": 1,
        }
        slope = {"pressure_Pa": 2e3, "converged": True, "value_mol_per_kg_Pa": 3.1e-4, "error_mol_per_kg_Pa": 5.5e-5}
        henry = {
            "value_mol_per_kg_Pa": 4.2e-4,
            "error_mol_per_kg_Pa": 6e-5,
            "converged": True,
            "value_molecules_per_cell_Pa": 2.08e-4,
            "error_molecules_per_cell_Pa": 3e-5,
            "isosteric_heat_kJ_per_mol": 41.3,
            "isosteric_heat_error_kJ_per_mol": 2.2,
            "insertions": 1800,
        }
        outputs = {
            "isotherm": orm.Dict({**shared, "points": points, "low_pressure_slope": {"CO2": slope}}),
            "heat_of_adsorption": orm.Dict(heat),
            "henry_coefficient": orm.Dict({"temperature_K": 303.0, "gases": {"CO2": henry}}),
        }
        self.give(chain, **outputs)
        return outputs

    @staticmethod
    def _point(index: int, pressure: float, loading: float) -> dict[str, Any]:
        error = (0.11, 0.16, 0.21, 0.34)[index]
        return {
            "pressure_Pa": pressure,
            "fugacity_Pa": pressure * (1 - 5e-8 * pressure),
            "loading_cm3_stp_per_gram": loading * 22.414,
            "loading_cm3_stp_per_gram_error": error * 22.414,
            "round_trips": 20 - 3 * index,
            "loading_per_cell": loading * 0.4941,
            "loading_per_cell_error": error * 0.4941,
            "loading_mol_per_kg": loading,
            "loading_mol_per_kg_error": error,
            "statistical_inefficiency": 18.0 + 5 * index,
            "effective_samples": 110.0 - 24 * index,
            "converged": index != 3,
            "hole_fraction": 0.04 if index == 3 else 0.0,
            "acceptance": {
                "insertion": {"attempted": 1000, "overlap": 610, "evaluated": 390, "accepted": 31 - 4 * index},
                "deletion": {"attempted": 1000, "evaluated": 1000, "accepted": 30 - 4 * index},
            },
            "isosteric_heat_kJ_per_mol": 40.2 - index if index else None,
            "isosteric_heat_error_kJ_per_mol": 3.3 if index else None,
            "chunks": 2,
            "steps": 10_000,
        }

    def _walk(self, mean: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        steps = np.arange(5, 10_001, 5)
        loading, values = round(mean), []
        for _ in steps:
            up = self.rng.random() < 0.04 * (1.5 if loading < mean else 0.5)
            down = self.rng.random() < 0.04 * (1.5 if loading > mean else 0.5)
            loading = max(loading + int(up) - int(down), 0)
            values.append(loading)
        return steps, np.array(values)

    @staticmethod
    def _series(steps: NDArray[np.int64], loadings: NDArray[np.int64], until: int) -> orm.ArrayData:
        """Return the series from the first step on: a chunk holds what came before it."""
        node = orm.ArrayData()
        node.set_array("step", steps[steps <= until])
        node.set_array("loading", loadings[steps <= until])
        return node


def fake_run(fails: str | None = None, rounds: int = 3) -> orm.WorkChainNode:
    """Store a run of the main job.

    :param fails: None for a run that finished, "isotherm" for one whose isotherm failed, "running" for one that goes on
    :param rounds: of active learning; fewer nodes with fewer of them
    """
    run = FakeRun()
    status, message = {None: (0, None), "running": (None, None), "isotherm": (340, "the isotherm failed")}[fails]
    inputs = {
        "structure": run.structure,
        "gas": orm.Dict({"name": "CO2", "symbols": ["C", "O", "O"]}),
        "model": run.model("starter", "foundation"),
        "protocol": orm.Str("fast"),
    }
    main = run.process("MofMaceWorkChain", None, "MIL-120 + CO2, fast", inputs, exit_status=status, message=message)
    run.log(main, "from MIL-120(Al) and CO2 to a potential and an isotherm, protocol fast")
    run.sampling(main, "sampling", 1.1)
    run.selection(main, "selection", 0, 10)
    run.labels(main, "labels", 10 if rounds > 1 else 3, failed=2)
    curve = run.active_learning(main, rounds)
    if fails != "running":
        parities = run.validation(main)
        outputs = run.isotherm(main, 0 if fails is None else 402)
        models = {f"models__model_{i}": run.model(f"model_{i}", "fine_tuned") for i in range(4)}
        run.give(main, learning_curve=curve, **parities, **outputs, **models)
    run.times[main.pk] = (0.0, run.minutes)
    run.set_times()
    return main


if __name__ == "__main__":
    from aiida import load_profile
    from aiida.storage.sqlite_temp import SqliteTempBackend

    from aiida_mofmace.report.html import write_report
    from aiida_mofmace.report.summary import print_summary

    load_profile(SqliteTempBackend.create_profile("fake"))
    node = fake_run(sys.argv[2] if len(sys.argv) > 2 else None)
    print_summary(node)
    write_report(node, sys.argv[1])
