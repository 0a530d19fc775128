"""The tutorial keeps its word: every chapter runs as a reader runs it, and asserts what it claims."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "tutorials"
CHAPTERS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
MARKERS = ("# %%", "# %% [markdown]")
PICTURES = {"02_the_stm_step": "memories.png", "04_digits_in_a_minute": "curve.png"}

every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)


def cells(chapter: Path) -> list[tuple[str, list[str]]]:
    """The cells of a percent-format script, as (marker, lines below it)."""
    found: list[tuple[str, list[str]]] = []
    for line in chapter.read_text("utf-8").splitlines():
        if line.startswith("# %%"):
            found.append((line, []))
        else:
            assert found, f"{chapter.name} begins with a line outside any cell: {line!r}"
            found[-1][1].append(line)
    return found


def test_the_chapters_are_numbered_without_a_gap() -> None:
    assert [int(chapter.name[:2]) for chapter in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))
    assert len(CHAPTERS) >= 4


@every_chapter
def test_a_chapter_runs_without_a_warning(
    chapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(chapter), run_name="__main__")
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    assert capsys.readouterr().out
    pictures = [PICTURES[chapter.stem]] if chapter.stem in PICTURES else []
    assert sorted(path.name for path in tmp_path.iterdir()) == pictures  # it leaves its picture and nothing else
    assert all((tmp_path / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)


@every_chapter
def test_the_cells_are_well_formed(chapter: Path) -> None:
    markers = [marker for marker, _ in cells(chapter)]
    assert set(markers) == set(MARKERS)
    assert markers[0] == "# %% [markdown]"
    for marker, lines in cells(chapter):
        text = [line for line in lines if line]
        assert text, f"{chapter.name} has an empty cell"
        if marker == "# %% [markdown]":
            assert all(line == "#" or line.startswith("# ") for line in text), text[0]
        else:
            ast.parse("\n".join(lines))  # a code cell is whole statements, so it also runs alone in a notebook
            assert not all(line.startswith("#") for line in text), text[0]


@every_chapter
def test_a_chapter_says_its_number_and_asserts_what_it_claims(chapter: Path) -> None:
    source = chapter.read_text("utf-8")
    assert source.startswith(f"# %% [markdown]\n# # {int(chapter.name[:2])} · ")
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source))) >= 10
    assert "print(getsource(" in source  # the package's own lines are shown, so they cannot be out of date


def test_the_contents_list_every_chapter_by_its_title() -> None:
    contents = (FOLDER / "README.md").read_text("utf-8")
    listed = dict(re.findall(r"\[(.+?)\]\((\d\d_\w+\.py)\)", contents))
    titles = {chapter.read_text("utf-8").splitlines()[1].split(" · ")[1]: chapter.name for chapter in CHAPTERS}
    assert listed == titles
