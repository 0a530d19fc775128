"""Render the tutorial: every chapter is run and written as a notebook with its outputs, its pictures beside it.

    python -m tools.tutorials                   all chapters, and codespell over their text
    python -m tools.tutorials 01_one_gate ...   these alone
    python -m tools.tutorials zh/01_one_gate    a translation alone, which runs nothing

The scripts are the single source. What is written depends on them and on the figures that they print, and on nothing
else: cell identifiers follow from chapter and position, and there are no execution counts, times or paths. A chapter
that fails, warns or leaves anything but its pictures writes nothing.

In the notebooks pictures are PNG: GitHub cuts ``<use>`` out of an SVG in a notebook, and with it marks and letters. The
same pictures are in ``tutorials/images`` as SVG, as the chapters save them.

A translation (``tutorials/zh``) has the code of its chapter, so it is not run: its notebook gets the chapter's outputs.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "tutorials"
TEXTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tutorials", "stg_np", "benchmarks/results"]
FIRST_CELL = """\
import warnings
warnings.filterwarnings("ignore", "IProgress not found")  # tqdm wishes for widgets
%config InlineBackend.figure_formats = ["retina"]
%config InlineBackend.print_figure_kwargs = {"bbox_inches": None, "metadata": {"Software": None}}
"""


def main(arguments: list[str] | None = None) -> None:
    """Render the chapters that are named, or all."""
    parser = argparse.ArgumentParser(description="Run the tutorial's chapters and write them as notebooks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a chapter, such as 01_one_gate (default: all)")
    names = parser.parse_args(arguments).names
    if not names:
        check_spelling()
    for script in [FOLDER / f"{name}.py" for name in names] or sorted(FOLDER.glob("[0-9][0-9]_*.py")):
        print(f"{script.stem} ...", flush=True)
        if script.parent == FOLDER:
            render(script)
        translation = FOLDER / "zh" / script.name
        if translation.exists():
            render_translation(translation)


def check_spelling() -> None:
    """Raise CalledProcessError where codespell finds a misspelt word in what people read."""
    texts = [path for path in TEXTS if (FOLDER.parent / path).exists()]
    subprocess.run([sys.executable, "-m", "codespell_lib", *texts], cwd=FOLDER.parent, check=True)


def render(script: Path) -> None:
    """Run one chapter and write its notebook and its pictures.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails.
        RuntimeError: if a cell writes to stderr, or leaves a file that is not a picture of the chapter's.
    """
    import jupytext

    notebook = jupytext.reads(script.read_text("utf-8"), fmt="py:percent")
    with TemporaryDirectory() as folder:
        execute(notebook, folder)
        pictures = sorted(Path(folder).iterdir())
        for picture in pictures:
            if not re.fullmatch(script.stem[:2] + r"_\w+\.(svg|gif)", picture.name):
                raise RuntimeError(f"{script.name} leaves {picture.name}, not a picture {script.stem[:2]}_….svg")
        clean(notebook, script.stem)
        (FOLDER / "images").mkdir(exist_ok=True)
        for picture in pictures:
            write_picture(picture, FOLDER / "images" / picture.name)
    write_notebook(notebook, script)


def render_translation(script: Path) -> None:
    """Write the notebook of a translated chapter, with the outputs of the chapter's own notebook.

    Raises:
        ValueError: if the two do not have as many cells, of the same kinds.
    """
    import jupytext
    import nbformat

    notebook = jupytext.reads(script.read_text("utf-8"), fmt="py:percent")
    original = nbformat.read(FOLDER / "notebooks" / f"{script.stem}.ipynb", as_version=4)
    if [cell.cell_type for cell in notebook.cells] != [cell.cell_type for cell in original.cells]:
        raise ValueError(f"{script} does not have the cells of its chapter")
    for cell, cell_of_original in zip(notebook.cells, original.cells):
        if cell.cell_type == "code":
            cell.outputs = cell_of_original.outputs
    clean(notebook, script.stem)
    write_notebook(notebook, script)


def write_notebook(notebook: Any, script: Path) -> None:
    """Write the notebook of a script into the folder ``notebooks`` beside it."""
    import nbformat

    target = script.parent / "notebooks" / f"{script.stem}.ipynb"
    target.parent.mkdir(exist_ok=True)
    nbformat.validate(notebook)
    target.write_text(nbformat.writes(notebook) + "\n", "utf-8")


def execute(notebook: Any, folder: str) -> None:
    """Run all cells in ``folder``, with this checkout's package; the outputs are put into the notebook."""
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell

    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
    os.environ["SOURCE_DATE_EPOCH"] = "0"  # matplotlib's date in an SVG
    notebook.cells.insert(0, new_code_cell(FIRST_CELL))
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=600, coalesce_streams=True, resources={"metadata": {"path": folder}}
    )
    client.execute()
    del notebook.cells[0]


def clean(notebook: Any, name: str) -> None:
    """Leave nothing in the notebook that another run of the same code would write otherwise."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for position, cell in enumerate(notebook.cells):
        cell.id = f"{name[:2]}-{position:02d}"
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        for output in cell.outputs:
            if output.get("name") == "stderr":
                raise RuntimeError(f"{name}, cell {position}, writes to stderr: {output.text}")
            if "execution_count" in output:
                output.execution_count = None
            if "data" in output:
                output.metadata = {kind: output.metadata[kind] for kind in output.data if kind in output.metadata}
                if "image/png" in output.data:
                    output.data.pop("text/plain", None)


def write_picture(source: Path, target: Path) -> None:
    """Copy a picture, an SVG without the block that names the program and the day."""
    if source.suffix != ".svg":
        target.write_bytes(source.read_bytes())
        return
    text = re.sub(r" *<metadata>.*?</metadata>\n", "", source.read_text("utf-8"), flags=re.DOTALL)
    target.write_text(re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE), "utf-8")


if __name__ == "__main__":
    main()
