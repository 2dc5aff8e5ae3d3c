"""Checks of what jobs ask of a scheduler: AiiDA's options by name and type, resources by the computer's scheduler."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from aiida import orm
from aiida.common.exceptions import AiidaException
from aiida.engine import CalcJob
from aiida.engine.processes.ports import PortNamespace

from aiida_mofmace.calculations.validators import first_message

from .jobs import cp2k_options, worker_options
from .parameter_types import type_words

__all__ = ["check_cores", "check_job_resources", "check_scheduler_options", "validate_options"]

_SECTIONS = {"worker_options": worker_options, "cp2k_options": cp2k_options}


def check_scheduler_options(options: Any, dotted: str) -> str | None:
    """Refuse options that AiiDA does not have for a job, and values that it does not take.

    :param options: as for ``metadata.options``
    :param dotted: key at which they stand
    """
    if not isinstance(options, Mapping):
        what = "null" if options is None else repr(options)
        return f"{dotted} is {what}; give options of AiiDA by their names, such as {{queue_name: cpu}}"
    known: PortNamespace = CalcJob.spec().inputs["metadata"]["options"]
    for name, value in options.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), list(known), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
            return f"{dotted}.{name} is no option of AiiDA; {hint}"
        message = _check_option(known[name], value)
        if message:
            return f"{dotted}.{name} is {'null' if value is None else repr(value)}; {message}"
    return None


def validate_options(options: orm.Dict | None, _: Any) -> str | None:
    """Refuse options of jobs that AiiDA does not have or does not take."""
    return None if options is None else check_scheduler_options(options.get_dict(), "options")


def _check_option(port: Any, value: Any) -> str | None:
    """Return what to give in place of a value, None if it is taken."""
    given = port.valid_type if isinstance(port.valid_type, tuple) else (port.valid_type,)
    types = tuple(one for one in given if one not in (None, type(None)))
    wanted = type_words(*types) if types else "a mapping"
    if value is None:
        return f"give {wanted}, or leave it out"
    if types and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
        lines = isinstance(value, (list, tuple)) and str in types
        return f"give {wanted}{' with a line for each item' if lines else ''}"
    if int in types and value < 1:
        return f"give {wanted} above 0"
    error = port.validate(value)
    return None if error is None else str(error.message)


def check_job_resources(inputs: Mapping[str, Any]) -> str | None:
    """Refuse resources that the scheduler of a code's computer does not take.

    :param inputs: of a process: its codes by port, and the parameters of a protocol, or the options of its jobs; of a
        job in a namespace of its own likewise
    """
    for port, value in inputs.items():
        message = None
        if type(value) is dict:  # a node that is a mapping, such as a Dict, is no namespace of ports
            message = check_job_resources(value)
        elif isinstance(value, orm.AbstractCode) and value.computer is not None:
            section = "cp2k_options" if port == "cp2k_code" else "worker_options"
            given = [options["resources"] for options in _options(inputs, section) if "resources" in options]
            message = first_message(_check_resources(resources, value.computer) for resources in given)
            message = f"resources.{section}.resources: {message}" if message else None
        if message:
            return message
    return None


def _options(inputs: Mapping[str, Any], section: str) -> Iterator[dict[str, Any]]:
    """Yield the options of the jobs of a code, where they can be told from the inputs."""
    yield inputs.get("metadata", {}).get("options", {})
    if isinstance(inputs.get("options"), orm.Dict):
        yield inputs["options"].get_dict()
    if isinstance(inputs.get("parameters"), orm.Dict) and "resources" in inputs["parameters"]:
        yield _SECTIONS[section](inputs["parameters"].get_dict())


def _check_resources(given: Mapping[str, Any], computer: orm.Computer) -> str | None:
    resources, known = dict(given), ""
    try:
        scheduler = computer.get_scheduler()
        known = f"; it knows {', '.join(scheduler.job_resource_class.get_valid_keys())}"
        scheduler.preprocess_resources(resources, computer.get_default_mpiprocs_per_machine())
        scheduler.validate_resources(**resources)
    except (ValueError, TypeError, AiidaException) as error:
        where = f"the scheduler {computer.scheduler_type} of computer {computer.label}"
        return f"{where} does not take {dict(given)}: {error}{known}"
    return None


def check_cores(parameters: Mapping[str, Any]) -> str | None:
    """Refuse a training in more processes than its job has cores.

    :param parameters: of a protocol
    """
    processes = parameters.get("fine_tune", {}).get("processes", 1)
    if processes == 1 or "resources" not in parameters:
        return None
    cores = _cores(worker_options(parameters)["resources"])
    if cores is None or processes <= cores:
        return None
    return (
        f"fine_tune.processes is {processes}, but a job of the worker has {cores} core{'s' if cores > 1 else ''}; "
        "raise resources.cores (or resources.worker_options.resources), or lower fine_tune.processes"
    )


def _cores(resources: Mapping[str, Any]) -> int | None:
    """Return the number of cores of a job on one machine; None where the scheduler has other words for it."""
    counts = {name: value for name, value in resources.items() if isinstance(value, int)}
    named = next((counts[name] for name in ("num_cores_per_machine", "num_cpus") if name in counts), None)
    if named is not None or "num_mpiprocs_per_machine" not in counts:
        return named
    return counts["num_mpiprocs_per_machine"] * counts.get("num_cores_per_mpiproc", 1)
