"""Record a run for the documentation: ``verdi run docs/record_run.py PK``.

Writes docs/output/*.txt and docs/images/*.png. Pictures need Chromium; without it only the texts are written.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from aiida import orm
from aiida.cmdline.utils.ascii_vis import format_call_graph

from aiida_mofmace.report.collect import collect
from aiida_mofmace.report.html import render
from aiida_mofmace.report.progress import follow
from aiida_mofmace.report.summary import summary

DOCS = Path(sys.argv[0]).resolve().parent  # `verdi run` gives __file__ without folder
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
ONLY_MODEL = "<style>header.top, .highlights, #isotherm, #labels, #run, footer { display: none }</style></head>"
MOST_LINES = 60


def record(process: orm.ProcessNode) -> None:
    """Write texts and pictures of a run.

    :param process: a run of MofMaceWorkChain that has ended
    """
    messages = io.StringIO()
    follow(process, messages)
    _write("progress.txt", _shortened(messages.getvalue()))
    _write("summary.txt", summary(process))
    _write("status.txt", _shortened(format_call_graph(process, max_depth=3, call_link_label=True)))
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        print("no Chromium: the pictures are left as they are")
        return
    page = render(collect(process))
    _picture(browser, page, "report_wide.png", (1400, 1180), dark=False)
    _picture(browser, page, "report_dark.png", (1400, 1180), dark=True)
    _picture(browser, page.replace("</head>", ONLY_MODEL, 1), "report_model.png", (1400, 2360), dark=False)


def _write(name: str, text: str) -> None:
    (DOCS / "output" / name).write_text(text.rstrip() + "\n", encoding="utf-8")


def _shortened(text: str) -> str:
    """Leave out the middle of a long text."""
    lines = text.rstrip().splitlines()
    if len(lines) <= MOST_LINES:
        return text
    return "\n".join([*lines[: MOST_LINES - 12], "    ...", *lines[-10:]])


def _picture(browser: str, page: str, name: str, size: tuple[int, int], dark: bool) -> None:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        source, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        source.write_text(page, encoding="utf-8")
        theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        target = [f"--user-data-dir={folder}/browser", f"--screenshot={shot}", f"--window-size={size[0]},{size[1]}"]
        subprocess.run([browser, *FLAGS, theme, *target, source.as_uri()], check=True, capture_output=True)
        Image.open(shot).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE).save(
            DOCS / "images" / name, optimize=True
        )


if __name__ == "__main__":
    record(orm.load_node(sys.argv[1]))
