"""From a CIF to a fine-tuned potential and an isotherm: MIL-120(Al) and CO2, protocol ``fast``.

Run it with ``verdi run examples/mil120_fast.py`` after ``mofmace setup``. For research numbers change the protocol and
the codes, and nothing else.
"""

import sys
from pathlib import Path

from aiida import orm
from aiida.common.exceptions import NotExistent
from aiida.engine import submit
from aiida.engine.daemon.client import get_daemon_client

from aiida_mofmace.report.html import write_report
from aiida_mofmace.report.progress import follow
from aiida_mofmace.report.summary import print_summary
from aiida_mofmace.workflows.inputs import structure_from_cif, without_cp2k
from aiida_mofmace.workflows.main import MofMaceWorkChain

CIF = Path(sys.argv[0]).resolve().parent / "MIL-120_primitive_40atoms.cif"  # `verdi run` gives __file__ without folder

codes = {"worker": orm.load_code("worker@localhost")}
overrides = {}
try:
    codes["cp2k"] = orm.load_code("cp2k@localhost")
except NotExistent:
    print("There is no CP2K: the labels are GFN1-xTB of tblite. Labels of the two programs are never mixed.")
    overrides = without_cp2k("fast", {})

builder = MofMaceWorkChain.get_builder_from_protocol(
    codes, structure_from_cif(CIF), gas="CO2", protocol="fast", overrides=overrides, seed=120
)
if not get_daemon_client().is_daemon_running:
    get_daemon_client().start_daemon()
node = submit(builder)
print(
    f"Submitted {node.process_label} <{node.pk}>; it goes on without this window. See `verdi process status {node.pk}`."
)

follow(node)
print_summary(node)
report = write_report(node, Path(f"mofmace_report_{node.pk}.html"))
print(f"Report: {report}")
# 7xx: all is done, but something deserves a look, such as an isotherm point whose error bar is wide.
sys.exit(0 if node.is_finished_ok or (node.is_finished and node.exit_status // 100 == 7) else 1)
