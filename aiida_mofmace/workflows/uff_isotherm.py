"""Isotherm of a rigid framework with a generic force field, and its snapshots in cells that can be labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ExitCode, WorkChain, if_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.cp2k_charges import charges_parameters
from aiida_mofmace.calculations.cp2k_charges import validate_inputs as validate_charges_inputs
from aiida_mofmace.calculations.cp2k_label import validate_cp2k_code
from aiida_mofmace.calculations.validators import check_code
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.level import LevelOfTheory

from .checks import check_charges, check_force_field
from .cp2k_charges_base import Cp2kChargesBaseWorkChain
from .harvest import reason
from .inputs import code_node, gas_node
from .jobs import UFF_GROUP, child_seed, cp2k_options, worker_options
from .ports import define_system_ports
from .protocols import filled_builder, resolve
from .uff_functions import charged_framework, fold_snapshots, pore_geometry, uff_isotherm
from .uff_isotherm_base import UffIsothermBaseWorkChain, molecule_settings

__all__ = ["UffIsothermWorkChain"]

_BAR = 1e5  # Pa
_PORE_SAMPLES = 20000


def validate_raspa_code(code: orm.AbstractCode | None, _: Any) -> str | None:
    """Refuse a code that is no RASPA."""
    return check_code(code, "raspa")


def validate_optional_cp2k_code(code: orm.AbstractCode | None, _: Any) -> str | None:
    """Refuse a code that is no CP2K."""
    return None if code is None else validate_cp2k_code(code, None)


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse charges of other atoms, none without a way to make them, and a gas without a force field."""
    if not {"structure", "gas", "parameters"} <= set(inputs):
        return None
    message = check_charges(inputs["structure"], inputs["charges"]) if "charges" in inputs else _check_making(inputs)
    return message or check_force_field(inputs["gas"])


def _charges_level(parameters: Mapping[str, Any] | orm.Dict) -> LevelOfTheory:
    """Return the level of the charges, with the spins and k-points of the labels."""
    name = parameters["uff_gcmc"]["charges_level"]
    return LevelOfTheory.from_protocol({"level": name, "labels": parameters["labels"]})


def _check_making(inputs: Mapping[str, Any]) -> str | None:
    """Refuse to make charges without CP2K, or at a level that has no potential to fit."""
    if "cp2k_code" not in inputs:
        return "there are no charges of the framework: give charges, or codes['cp2k'] to make them (REPEAT)"
    try:
        level = _charges_level(inputs["parameters"])
        if level.program != "cp2k":
            return f"uff_gcmc.charges_level {level.name} is not computed by CP2K; take one that is, e.g. pbe-d3"
        parameters = charges_parameters(level, inputs["structure"])
    except ValueError as error:
        return f"uff_gcmc.charges_level: {error}"
    given = {"structure": inputs["structure"], "level": orm.Dict(level.to_dict()), "parameters": orm.Dict(parameters)}
    return validate_charges_inputs(given, None)


class UffIsothermWorkChain(WorkChain):
    """Adsorption as a generic force field sees it: UFF, rigid framework, rigid gas, RASPA through aiida-lsmo.

    The isotherm is a product of its own, to be seen beside that of the trained potential. The snapshots are loaded
    configurations for the selection, found without any dynamics.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.input(
            "code", valid_type=orm.AbstractCode, validator=validate_raspa_code, help="RASPA2, its command `simulate`."
        )
        define_system_ports(spec, "uff_gcmc and resources")
        spec.input(
            "charges",
            valid_type=orm.List,
            required=False,
            help="Charge of each atom of the framework in e, in its order. Default: made by CP2K.",
        )
        spec.input(
            "cp2k_code",
            valid_type=orm.AbstractCode,
            required=False,
            validator=validate_optional_cp2k_code,
            help="CP2K, which fits the charges (REPEAT) where none are given.",
        )
        spec.inputs.validator = validate_inputs
        spec.output("isotherm", valid_type=orm.Dict, required=False, help="Points with RASPA's errors, also in mol/kg.")
        spec.output("pores", valid_type=orm.Dict, help="Volume that the gas can reach, and that of closed pockets.")
        spec.output(
            "blocking_spheres",
            valid_type=orm.SinglefileData,
            required=False,
            help="Spheres over the closed pockets: fractional coordinates and radius in Å, in the format of Zeo++.",
        )
        spec.output(
            "charges", valid_type=orm.List, required=False, help="Charge of each atom in e, where they were made here."
        )
        spec.output_namespace(
            "trajectories",
            dynamic=True,
            valid_type=FramesData,
            help="Snapshots in single cells by pressure: pressure_00 and so on; no energies, no forces.",
        )
        spec.output(
            "snapshots",
            valid_type=orm.Dict,
            required=False,
            help="By pressure: number of snapshots, of the single cells in them, of those left out for clashing images "
            "and of those drawn; and what could not be read.",
        )
        spec.outline(
            cls.setup,
            cls.inspect_pores,
            if_(cls.lacks_charges)(cls.run_charges, cls.inspect_charges),
            cls.run_isotherm,
            cls.inspect_isotherm,
            cls.results,
        )
        spec.exit_code(301, "ERROR_RASPA_FAILED", message="RASPA gave no isotherm: {message}")
        spec.exit_code(302, "ERROR_CHARGES_FAILED", message="CP2K gave no charges: {message}")
        spec.exit_code(701, "WARNING_FEWER_PRESSURES", message="The isotherm ends before its last pressure: {message}")
        spec.exit_code(330, "ERROR_NO_PORE", message="The framework is closed to {gas}: no volume can be reached.")

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        structure: orm.StructureData,
        charges: orm.List | Sequence[float] | None = None,
        gas: str | orm.Dict = "CO2",
        *,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol.

        :param codes: code or label of one by key; "raspa" is needed, "cp2k" without charges
        :param charges: of the framework's atoms in e; None to have CP2K fit them (REPEAT) at `uff_gcmc.charges_level`
        :raises ValueError: if an input is refused; the message says what to do
        """
        inputs: dict[str, Any] = {
            "code": code_node(codes, "raspa"),
            "structure": structure,
            "gas": gas_node(gas),
            "seed": orm.Int(seed),
            "parameters": orm.Dict(resolve(protocol, overrides)),
            "metadata": {"label": f"UFF isotherm of {structure.get_formula()}"},
        }
        if charges is not None:
            inputs["charges"] = charges if isinstance(charges, orm.List) else orm.List(list(charges))
        elif "cp2k" in codes:
            inputs["cp2k_code"] = code_node(codes, "cp2k")
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Measure the pores."""
        self.ctx.charges = self.inputs.get("charges")
        self.ctx.section = self.inputs.parameters["uff_gcmc"]
        self.ctx.gas = self.inputs.gas["name"]
        self.ctx.molecule = molecule_settings(self.ctx.gas).store()
        found = pore_geometry(self.inputs.structure, self.ctx.molecule, orm.Int(_PORE_SAMPLES))
        self.ctx.pores, self.ctx.spheres = found["pores"], found.get("blocking_spheres")
        self.out_many(found)

    def inspect_pores(self) -> ExitCode | None:
        """Give up where nothing can get in."""
        if not self.ctx.pores["is_porous"]:
            code: ExitCode = self.exit_codes.ERROR_NO_PORE
            return code.format(gas=self.ctx.gas)
        fraction = self.ctx.pores["POAV_Volume_fraction"]
        closed = self.ctx.pores["blocked_volume_fraction"]
        self.report(
            f"{self.ctx.gas} can reach {100 * fraction:.1f} % of the volume; closed pockets are "
            f"{100 * self.ctx.pores['pocket_volume_fraction']:.1f} %, blocked {100 * closed:.1f} % "
            f"by {self.ctx.pores['Number_of_blocking_spheres']} spheres"
        )
        return None

    def lacks_charges(self) -> bool:
        """Whether CP2K has to make the charges."""
        return self.ctx.charges is None

    def run_charges(self) -> dict[str, Any]:
        """Fit charges to the electrostatic potential in the pores."""
        level = _charges_level(self.inputs.parameters)
        inputs = {
            "code": self.inputs.cp2k_code,
            "structure": self.inputs.structure,
            "level": orm.Dict(level.to_dict()),
            "options": orm.Dict(cp2k_options(self.inputs.parameters.get_dict())),
            "metadata": {"call_link_label": "charges", "label": f"Charges at {level.name}"},
        }
        return {"fit": self.submit(Cp2kChargesBaseWorkChain, inputs)}

    def inspect_charges(self) -> ExitCode | None:
        """Take the charges."""
        node = self.ctx.fit
        if not node.is_finished_ok:
            code: ExitCode = self.exit_codes.ERROR_CHARGES_FAILED
            return code.format(message=reason(node))
        self.ctx.charges = node.outputs.charges
        self.out("charges", self.ctx.charges)
        return None

    def run_isotherm(self) -> dict[str, Any]:
        """Run RASPA at all pressures, one after the other."""
        section = self.ctx.section
        cycles = section["cycles"]
        parameters = {
            "ff_framework": "UFF",
            "ff_cutoff": section["cutoff"],
            "ff_shifted": section["shifted"],
            "ff_tail_corrections": section["tail_corrections"],
            "temperature": section["temperature"],
            "pressure_list": [pressure / _BAR for pressure in section["pressures"]],
            "raspa_widom_cycles": section["widom_cycles"],
            "raspa_gcmc_init_cycles": section["initialization_cycles"],
            "raspa_gcmc_prod_cycles": cycles,
            "raspa_minKh": 0.0,
            "movie_every": max(1, cycles // section["movie_frames"]),
        }
        inputs = {
            "structure": charged_framework(self.inputs.structure, self.ctx.charges),
            "molecule": self.ctx.molecule,
            "parameters": orm.Dict(parameters),
            "geometric": self.ctx.pores,
            "raspa_base": {
                "raspa": {
                    "code": self.inputs.code,
                    **({} if self.ctx.spheres is None else {"block_pocket": {"block_file": self.ctx.spheres}}),
                    "settings": orm.Dict({"additional_retrieve_list": [["Movies/System_0/*component*.pdb", ".", 3]]}),
                    "metadata": {"options": worker_options(self.inputs.parameters.get_dict())},
                }
            },
            "metadata": {"call_link_label": "raspa", "label": f"GCMC of {self.ctx.gas} with UFF"},
        }
        return {"isotherm": self.submit(UffIsothermBaseWorkChain, inputs)}

    def inspect_isotherm(self) -> ExitCode | None:
        """See whether RASPA came to its end, or at least to the end of the first pressure."""
        node = self.ctx.isotherm
        if "output_parameters" in node.outputs:
            return None
        code: ExitCode = self.exit_codes.ERROR_RASPA_FAILED
        return code.format(message=reason(node))

    def results(self) -> ExitCode | None:
        """Hand out isotherm and snapshots; say if pressures are missing."""
        node = self.ctx.isotherm
        isotherm = uff_isotherm(self.inputs.structure, self.inputs.gas, node.outputs.output_parameters)
        self.out("isotherm", isotherm)
        if isotherm["points"]:
            self._fold(node, len(isotherm["points"]))
        else:
            self.report("no molecule was inserted anywhere: there is no isotherm")
        if node.is_finished_ok:
            return None
        code: ExitCode = self.exit_codes.WARNING_FEWER_PRESSURES
        return code.format(message=reason(node))

    def _fold(self, node: orm.ProcessNode, n_points: int) -> None:
        """Cut the snapshots of so many pressures into single cells."""
        section = self.ctx.section
        called = node.base.links.get_outgoing(link_type=LinkType.CALL_WORK).all()
        runs = {link.link_label: link.node for link in called}
        folders = {f"pressure_{index:02d}": runs[f"run_raspa_gcmc_{index + 1}"] for index in range(n_points)}
        cells = next(iter(folders.values())).inputs.raspa.parameters["System"]["framework_1"]["UnitCells"]
        groups = {
            name: f"{UFF_GROUP}_{section['temperature']:g}K_{pressure:g}Pa"
            for name, pressure in zip(folders, section["pressures"], strict=False)
        }
        parameters = {
            "repeats": [int(number) for number in cells.split()],
            "seed": child_seed(self.inputs.seed, "snapshots").value,
            "snapshots": section["snapshots"],
            "minimum_distance": section["minimum_distance"],
            "groups": groups,
            "single_site": self.ctx.molecule["singlebead"],
        }
        retrieved = {name: run.outputs.retrieved for name, run in folders.items()}
        found = fold_snapshots(self.inputs.structure, self.inputs.gas, orm.Dict(parameters), **retrieved)
        self.out("snapshots", found.pop("snapshots"))
        self.out("trajectories", found)
        self._report_snapshots(self.outputs["snapshots"].get_dict())

    def _report_snapshots(self, counts: dict[str, dict[str, Any]]) -> None:
        """Say what became of the snapshots, and which runs have none."""
        cells, clashing, drawn = (sum(row[key] for row in counts.values()) for key in ("cells", "clashing", "drawn"))
        self.report(
            f"{drawn} snapshots in single cells, drawn from {cells}, of which {clashing} were left out: images of "
            f"molecules nearer than {self.ctx.section['minimum_distance']} Å"
        )
        for name, row in counts.items():
            if row["unreadable"] or not row["snapshots"]:
                self.report(f"{name} has {row['snapshots']} snapshots; unreadable: {row['unreadable'] or 'nothing'}")
