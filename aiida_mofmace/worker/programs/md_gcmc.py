"""Hybrid molecular dynamics and grand-canonical Monte Carlo: one point of an adsorption isotherm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import WorkerError
from ..kernels.mace_kinds import why_not
from ..kernels.model import Configuration, MaceEvaluator, Potential
from ..kernels.receptive_field import LayerRecord, LocalPotential
from ..kernels.referee import Referee
from ..kernels.statistics import estimate_mean
from ..kernels.thermodynamics import chemical_potential
from ..stopping import StopRequest
from .gcmc_averages import RunRecord, summarise
from .hybrid import HybridSimulation, MdGcmcParameters
from .simulation import describe_explosion, explosion_error, open_model, read_structure

__all__ = ["Point", "potentials", "read_point", "record_of", "run", "simulate"]


def record_of(simulation: HybridSimulation) -> RunRecord:
    """Return what the averages of a run are made of, earlier parts of the run included."""
    components = {
        each.gas.name: {"fugacity": each.fugacity, "ideal_gas": _ideal_gas(simulation, kind)}
        for kind, each in enumerate(simulation.species)
    }
    moves = simulation.cell_moves
    return RunRecord(
        simulation.parameters.temperature,
        simulation.series.arrays(),
        simulation.counts(),
        components,
        None if moves is None else moves.pressure,
    )


def _ideal_gas(simulation: HybridSimulation, kind: int) -> dict[str, Any]:
    """Describe one kind of molecule without the framework: β f V, μ and the mean total energy of a molecule.

    V is the volume at the end of the run.
    """
    species, temperature = simulation.species[kind], simulation.parameters.temperature
    energy = estimate_mean(np.array(species.reservoir.mean_energies), detect_equilibration=False)
    alone = Configuration(species.gas.numbers, species.gas.positions, simulation.state.cell)
    atomic = simulation.potential.evaluate([alone], forces=False)[0].atomic_energy
    return {
        "number": simulation.exchange.ideal_number(simulation.state, kind),
        "chemical_potential": chemical_potential(temperature, species.fugacity, species.gas.mass),
        "energy": energy.mean + atomic,
        "energy_error": energy.error,
    }


@dataclass(frozen=True)
class Point:
    """What one simulation starts from.

    :param parameters: of the run
    :param seed: of all random numbers; of no account where there is a checkpoint
    :param framework: without gas; None where there is a checkpoint
    :param checkpoint: state to go on from, or None
    :param folder: where its files are written
    """

    parameters: MdGcmcParameters
    seed: int
    framework: Atoms | None
    checkpoint: Path | None
    folder: Path


def read_point(inputs: Mapping[str, Any], model: MaceEvaluator, folder: Path | None = None) -> Point:
    """Read the input of one simulation, files included.

    :param inputs: seed, files and parameters, as in input.json
    :param model: that is to know its elements
    :param folder: where its files are to be written, None for the present one
    :raises WorkerError: kind bad_input
    """
    parameters = MdGcmcParameters.from_dict(inputs["parameters"])
    if folder is not None and parameters.engine != "native":
        raise WorkerError("bad_input", "only the engine native runs several systems in one process")
    for gas in parameters.gases:
        model.require_elements(gas.numbers)
    files, framework = inputs["files"], None
    checkpoint = Path(files["checkpoint"]) if files.get("checkpoint") else None
    if checkpoint is None:
        framework = read_structure(files["structure"])
        model.require_elements(framework.numbers)
    return Point(parameters, int(inputs["seed"]), framework, checkpoint, folder or Path())


def simulate(
    point: Point,
    potential: Potential,
    stop: StopRequest,
    make: Callable[..., HybridSimulation] = HybridSimulation,
) -> dict[str, Any]:
    """Run one simulation and write frames.npz, timeseries.npz, checkpoint.npz and, if holes were met, candidates.npz.

    :param make: class of the simulation, or what makes one of the same arguments
    :return: the figures of the run, and stopped_early if it was stopped before its end
    :raises WorkerError: kind bad_input, does_not_fit; explosion or nan if nothing good came before it
    """
    simulation = make(point.parameters, potential, point.framework, point.seed, point.checkpoint, folder=point.folder)
    explosion, stopped, speed = simulation.advance(stop)
    if explosion is not None and len(simulation.series) == 0:
        raise explosion_error(explosion)
    simulation.save(with_state=explosion is None)
    results = summarise(record_of(simulation)) | {
        "n_frames": len(simulation.images),
        "steps_done": simulation.state.step,
        "steps_total": point.parameters.steps,
        "steps_per_second": speed,
        **simulation.remarks(),
    }
    if explosion is not None:
        results["explosion"] = explosion | {"message": describe_explosion(explosion)}
    return results | ({"stopped_early": True} if stopped else {})


def _maker(inputs: Mapping[str, Any], device: str) -> Callable[..., HybridSimulation]:
    """Return what makes a simulation of the engine that the parameters name."""
    parameters = inputs["parameters"]
    if parameters.get("engine", "native") != "lammps":
        return HybridSimulation
    from .hybrid_lammps import LammpsHybridSimulation

    referee = Referee(inputs["files"]["model"], device, inputs.get("dtype", "float32"), parameters.get("head"))
    return partial(LammpsHybridSimulation, referee=referee)


def _why_not_local(model: MaceEvaluator) -> str:
    """Say why trial moves are evaluated in full; empty if they need not be.

    A GPU takes for a few atoms about as long as for all.
    """
    return why_not(model.model) or ("" if model.device == "cpu" else f"on {model.device} it would save nothing")


def potentials(model: MaceEvaluator, points: Iterable[Point]) -> list[Potential]:
    """Return the potential of each simulation, which may evaluate trial moves by what they change.

    Those of LAMMPS are evaluated in full.
    """
    can_be_local = [point.parameters.engine == "native" for point in points]
    if _why_not_local(model) or not any(can_be_local):
        return [model for _ in can_be_local]
    record = LayerRecord(model)
    return [LocalPotential(record) if is_local else model for is_local in can_be_local]


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Run one simulation with a MACE model.

    :raises WorkerError: kind bad_input, no_model, does_not_fit, wrong_engine; explosion or nan if nothing good came
        before it
    """
    model = open_model(inputs, inputs["parameters"].get("head"))
    point = read_point(inputs, model)
    (potential,) = potentials(model, [point])
    results = simulate(point, potential, stop, _maker(inputs, model.device))
    how = {"local_trials": isinstance(potential, LocalPotential), "why_not_local": _why_not_local(model)}
    return results | how | {"device": model.device}
