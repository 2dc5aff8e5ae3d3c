"""A framework with elements that no model at hand knows, from its CIF to the isotherm: SIFSIX-3-Zn and CO2.

Run it with ``verdi run examples/sifsix_from_scratch.py`` after ``mofmace setup``; CP2K is needed. The starter model is
refused, so a model with random weights takes its place and learns from displaced frames first, then from what it
explores itself. The budget is a few minutes of one core: its numbers are no research results.
"""

import sys
from pathlib import Path

from aiida import orm
from aiida.engine import run, submit
from aiida.engine.daemon.client import get_daemon_client

from aiida_mofmace.calculations.blank_model import BlankModelCalculation
from aiida_mofmace.report.html import write_report
from aiida_mofmace.report.progress import follow
from aiida_mofmace.report.summary import print_summary
from aiida_mofmace.workflows.inputs import gas_node, structure_from_cif
from aiida_mofmace.workflows.jobs import blank_model_inputs
from aiida_mofmace.workflows.main import MofMaceWorkChain
from aiida_mofmace.workflows.protocols import resolve

CIF = Path(sys.argv[0]).resolve().parent / "SIFSIX-3-Zn_28atoms.cif"  # `verdi run` gives __file__ without folder
SHORT = {"steps": 200, "equilibration_steps": 40, "stride": 4}
BUDGET = {
    "sampling": {"loadings": [0, 1], "rattled_frames": 80, "rattled_gas_frames": 6},  # the pore holds one molecule
    "initial_set": {"n_empty": 12, "n_per_loading": 40},  # what binds it is learned from many places of it
    "active_learning": {"committee_size": 2, "max_rounds": 1, "n_select": 12, "loadings": [0, 1], **SHORT},
    "validation": {"loadings": [0, 1], "n_frames": 2, **SHORT},
    "isotherm": {"pressures": [1.0e4, 1.0e5], "chunk_steps": 1500, "min_steps": 1500, "max_steps": 1500},
    "heat_of_adsorption": {"steps": 600, "equilibration_steps": 200},
}

codes = {"worker": orm.load_code("worker@localhost"), "cp2k": orm.load_code("cp2k@localhost")}
structure = structure_from_cif(CIF)
try:
    MofMaceWorkChain.get_builder_from_protocol(codes, structure, gas="CO2", protocol="fast")
except ValueError as refusal:
    print(f"With the starter model: {refusal}\n")

if not get_daemon_client().is_daemon_running:
    get_daemon_client().start_daemon()
inputs = blank_model_inputs(codes["worker"], structure, gas_node("CO2"), resolve("fast"), orm.Int(1))
untrained = run(BlankModelCalculation, **inputs)["model"]
builder = MofMaceWorkChain.get_builder_from_protocol(
    codes, structure, gas="CO2", model=untrained, protocol="fast", overrides=BUDGET, seed=1
)
node = submit(builder)
print(f"Submitted {node.process_label} <{node.pk}>; see `verdi process status {node.pk}`.")

follow(node)
print_summary(node)
report = write_report(node, Path(f"mofmace_report_{node.pk}.html"))
print(f"Report: {report}")
# 7xx: all is done, but something deserves a look, such as an isotherm point whose error bar is wide.
sys.exit(0 if node.is_finished_ok or (node.is_finished and node.exit_status // 100 == 7) else 1)
