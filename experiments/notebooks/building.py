"""Build notebooks from percent scripts: execute them and keep only outputs that do not differ between two runs.

Pictures are stored as SVG and as PNG: JupyterLab does not render the SVG of a notebook that is not trusted.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING

from interp.views.converting import SCALE, png_size
from interp.views.view import COLUMN

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = Path(__file__).parent
NAMES = ("patching_text", "mnemonics", "hypotheses")
# The line of a script that a reader changes to get live views.
FLAG = "LIVE = False"
# Largest size of a stored notebook in bytes, and longest run of a cell in seconds.
MOST_BYTES = 3 * 2**19
SECONDS = 600
# Environment of the kernel: no progress bars, no warnings that widgets are missing, no download.
QUIET = {
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def script_of(name: str) -> Path:
    """Return the path of a notebook's script."""
    return FOLDER / f"{name}.py"


def notebook_of(name: str) -> Path:
    """Return the path of the notebook that is built from a script."""
    return FOLDER / f"{name}.ipynb"


def read_script(name: str, live: bool = False) -> NotebookNode:
    """Return a script's cells without outputs; `live` sets its flag. Raises `ValueError` for an unknown name."""
    import jupytext

    if name not in NAMES:
        raise ValueError(f"unknown notebook {name!r}; notebooks are {', '.join(NAMES)}")
    text = script_of(name).read_text(encoding="utf-8")
    assert text.count(FLAG) == 1, f"{name}.py has one line {FLAG}"
    notebook = jupytext.reads(text.replace(FLAG, "LIVE = True") if live else text, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", {}
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(name: str, live: bool = False) -> NotebookNode:
    """Return the executed notebook, without metadata that differs between runs.

    Raises `nbclient.exceptions.CellExecutionError` if a cell fails, and `ValueError` if one writes to standard error.
    """
    from nbclient import NotebookClient

    notebook = read_script(name, live)
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(FOLDER.parent.parent)}},
    )
    client.execute(env={**os.environ, **QUIET})
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}  # without the version
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and output.name == "stderr":
                raise ValueError(f"{name}: a cell writes to standard error: {output.text}")
            if "metadata" in output:
                output.metadata = _sizes(output.data)
    return notebook


def _sizes(data: dict) -> dict:
    """Return the metadata that shows a PNG picture at the size of its SVG, which has fewer pixels."""
    if not {"image/png", "image/svg+xml"} <= set(data):
        return {}
    width, height = png_size(base64.b64decode(data["image/png"]))
    shown = min(width // SCALE, COLUMN)
    return {"image/png": {"width": shown, "height": round(height * shown / width)}}


def text_of(notebook: NotebookNode) -> str:
    """Return a notebook as the text of its file. Raises `nbformat.ValidationError` for an invalid one."""
    import nbformat

    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def stale(name: str) -> str:
    """Return how the stored notebook differs from its script; "" if it does not."""
    import nbformat

    path = notebook_of(name)
    if not path.exists():
        return f"{path.name} has not been built"
    expected, stored = read_script(name), nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    if len(expected.cells) != len(stored.cells):
        return f"{path.name} has {len(stored.cells)} cells, its script {len(expected.cells)}"
    for number, (new, old) in enumerate(zip(expected.cells, stored.cells, strict=True)):
        if (new.cell_type, new.source) != (old.cell_type, old.source):
            return f"cell {number} of {path.name} differs from its script"
    ran = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    return "" if ran == list(range(1, len(ran) + 1)) else f"{path.name} was not executed from top to bottom"
