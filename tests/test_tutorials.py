"""The tutorial keeps its word: a chapter runs as a reader runs it, asserts what it claims and is rendered as it stands.

The scripts ``tutorials/NN_name.py`` are the single source. `make tutorials` writes from each a notebook with outputs
(``notebooks/``) and its pictures (``images/``); nothing here needs Jupyter.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from matplotlib.figure import Figure

from stg_np import __file__ as package_file

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tutorials"
CHAPTERS = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
TRANSLATIONS = sorted((FOLDER / "zh").glob("[0-9][0-9]_*.py"))  # not run: a test says that the code is the chapter's
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.py"))
PAGES = sorted(FOLDER.glob("*.md"))
SAVEFIG = Figure.savefig
MARKDOWN, CODE = "# %% [markdown]", "# %%"

every_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
every_translation = pytest.mark.parametrize("chapter", TRANSLATIONS, ids=lambda chapter: f"zh-{chapter.stem}")
in_every_language = pytest.mark.parametrize(
    "chapter", [*CHAPTERS, *TRANSLATIONS], ids=lambda chapter: f"{chapter.parent.name}-{chapter.stem}"
)


@cache
def cells(chapter: Path) -> list[tuple[str, str]]:
    """The cells of a percent-format script, as (marker, source): Markdown without its comment signs."""
    found: list[tuple[str, list[str]]] = []
    for line in chapter.read_text("utf-8").splitlines():
        if line.startswith("# %%"):
            found.append((line, []))
            continue
        assert found, f"{chapter.name} begins with a line outside any cell: {line!r}"
        if found[-1][0] == MARKDOWN and line:
            assert line == "#" or line.startswith("# "), f"{chapter.name}: {line!r} in a cell of Markdown"
            line = line[2:]
        found[-1][1].append(line)
    return [(marker, "\n".join(lines).strip("\n")) for marker, lines in found]


def markdown(chapter: Path) -> str:
    return "\n\n".join(source for marker, source in cells(chapter) if marker == MARKDOWN)


def notebook_path(chapter: Path) -> Path:
    return chapter.parent / "notebooks" / f"{chapter.stem}.ipynb"


@cache
def notebook(chapter: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(notebook_path(chapter).read_text("utf-8"))
    return found


def run(script: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a script in an empty folder; the names of what it leaves there."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(Figure, "savefig", sketch)
    pyplot = sys.modules.get("matplotlib.pyplot")
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        if pyplot := pyplot or sys.modules.get("matplotlib.pyplot"):
            pyplot.close("all")
            sys.modules["matplotlib"].rcdefaults()
    return sorted(path.name for path in folder.iterdir())


def sketch(figure: Figure, file: Any, **options: Any) -> None:
    """Save a figure small and without arranging its parts, which is most of the work; `make tutorials` does it well."""
    if isinstance(file, str):
        figure.set_layout_engine("none")
        options = {"format": "png", "dpi": 20}
    SAVEFIG(figure, file, **options)


def pictures(chapter: Path) -> list[str]:
    """The pictures of a chapter that are committed."""
    return sorted(path.name for path in (FOLDER / "images").glob(f"{chapter.stem[:2]}_*"))


# --- the scripts --------------------------------------------------------------------------------------------


def test_the_chapters_are_numbered_without_a_gap() -> None:
    assert [int(chapter.name[:2]) for chapter in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))


@every_chapter
def test_a_chapter_runs_and_leaves_its_pictures_only(
    chapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(chapter, tmp_path, monkeypatch) == pictures(chapter)
    assert capsys.readouterr().out


@in_every_language
def test_the_cells_are_well_formed(chapter: Path) -> None:
    assert {marker for marker, _ in cells(chapter)} == {MARKDOWN, CODE}
    assert cells(chapter)[0][0] == MARKDOWN
    for marker, source in cells(chapter):
        assert source, f"{chapter.name} has an empty cell"
        if marker == CODE:
            ast.parse(source)  # a code cell is whole statements, so it also runs alone in a notebook
            assert not all(line.startswith("#") for line in source.splitlines()), source


@every_chapter
def test_a_chapter_says_its_number_and_asserts_what_it_claims(chapter: Path) -> None:
    source = chapter.read_text("utf-8")
    assert source.startswith(f"# %% [markdown]\n# # {int(chapter.name[:2])} · ")
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source))) >= 10


@every_chapter
def test_a_chapter_says_what_it_is_for_and_ends_with_words_summary_and_exercises(chapter: Path) -> None:
    text = markdown(chapter)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[-3:] == ["In the field's words", "Summary", "Exercises"]
    assert "**You will know**" in text.split("\n## ")[0]
    exercises = text.split("\n## Exercises")[1]
    assert re.findall(r"^\*\*(\d)\. ", exercises, re.MULTILINE) == ["1", "2", "3"]
    assert exercises.count("<details>") == exercises.count("</details>") == 3  # a hint each
    assert (FOLDER / "solutions" / chapter.name).exists()


# --- translations -------------------------------------------------------------------------------------------


def code_without_words(source: str) -> str:
    """What the code of a cell does: its syntax tree without docstrings (comments are not in it)."""
    return ast.unparse(ast.parse("\n".join(without_docstrings(source))))


@every_translation
def test_a_translation_has_the_cells_and_the_code_of_its_chapter(chapter: Path) -> None:
    original = cells(FOLDER / chapter.name)
    assert [marker for marker, _ in cells(chapter)] == [marker for marker, _ in original]
    for (marker, translated), (_, source) in zip(cells(chapter), original):
        if marker == CODE:
            assert code_without_words(translated) == code_without_words(source), f"the code of {chapter.name} is older"


def test_the_comparison_of_translated_code_leaves_out_words_only() -> None:
    code = 'def f(x):\n    """Say y."""\n    return x  # as it is'
    assert code_without_words(code) == code_without_words('def f(x):\n    """说 y。"""\n    return x  # 原样')
    assert code_without_words(code) != code_without_words(code.replace("return x", "return -x"))


def skeleton(text: str) -> list[str]:
    """What a translation of Markdown keeps: levels of headings, lists, rows of tables, exercises, blocks of code."""
    pieces = r"^```python\n.*?^```$|^#+ |^[*] |^\|(?=.)|^[*][*]\d\. |</?details>|\$\$"
    return re.findall(pieces, text, re.MULTILINE | re.DOTALL)


@every_translation
def test_a_translation_has_the_headings_lists_and_blocks_of_its_chapter(chapter: Path) -> None:
    for (marker, translated), (_, source) in zip(cells(chapter), cells(FOLDER / chapter.name)):
        if marker == MARKDOWN:
            assert skeleton(translated) == skeleton(source), translated


@every_translation
def test_a_translation_is_written_in_chinese(chapter: Path) -> None:
    for marker, translated in cells(chapter):
        assert marker == CODE or re.search(r"[\u4e00-\u9fff]", translated), translated
    text = re.sub(r"^```.*?^```$|`[^`\n]*`|\$[^$]*\$", "", markdown(chapter), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"[\u4e00-\u9fff] ?[,;?!]( |$)", text, re.MULTILINE)  # punctuation of full width
    for line in text.splitlines():
        pieces = line.split("**")
        for bold, after in zip(pieces[1::2], pieces[2::2]):  # else Markdown would show the asterisks
            assert not (re.search(r"[，。：；！？、”）]$", bold) and re.match(r"[\u4e00-\u9fff]", after)), bold


@every_translation
def test_the_outputs_of_a_translation_are_those_of_its_chapter(chapter: Path) -> None:
    outputs = [cell.get("outputs") for cell in notebook(FOLDER / chapter.name)["cells"]]
    assert [cell.get("outputs") for cell in notebook(chapter)["cells"]] == outputs, "`make tutorials` was not run"


# --- code of the package that is shown ----------------------------------------------------------------------


def shown(chapter: Path) -> list[tuple[str, str]]:
    """What a chapter shows of the package, (file, code): cells and fenced blocks that begin with ``# stg_np/….py``."""
    blocks = [source for marker, source in cells(chapter) if marker == CODE]
    blocks += re.findall(r"^```python\n(.*?)^```$", markdown(chapter), re.MULTILINE | re.DOTALL)
    found = [re.match(r"# (stg_np/[\w/]+\.py)\n(.*)", block, re.DOTALL) for block in blocks]
    return [(match[1], match[2]) for match in found if match]


def without_docstrings(code: str) -> list[str]:
    """The lines of a piece of Python, without its docstrings; what is no whole statement is left as it stands."""
    lines = code.splitlines()
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return lines
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            first = node.body[0]
            for number in range(first.lineno - 1, first.end_lineno or 0):
                lines[number] = ""
    return lines


def is_part_of(piece: list[str], lines: list[str]) -> bool:
    """Whether these lines stand in a file one after the other, whatever their common indentation."""
    piece = dedent("\n".join(piece)).splitlines()
    return any(
        dedent("\n".join(lines[k : k + len(piece)])).splitlines() == piece for k in range(len(lines) - len(piece) + 1)
    )


def differs_from_the_file(code: str, file: str) -> str:
    """The first piece of the code that is not in the file ("" where all are). ``# …`` and blank lines divide it."""
    lines = [line for line in without_docstrings(file) if line.strip()]
    piece: list[str] = []
    for line in [*without_docstrings(code), ""]:
        if line.strip() and line.strip() != "# …":
            piece.append(line)
        elif piece:
            if not is_part_of(piece, lines):
                return "\n".join(piece)
            piece = []
    return ""


@in_every_language
def test_shown_code_is_the_packages(chapter: Path) -> None:
    assert "getsource" not in chapter.read_text("utf-8")  # a reader of the page would see nothing
    for name, code in shown(chapter):
        assert not differs_from_the_file(code, (ROOT / name).read_text("utf-8")), f"{chapter.name}: not in {name}"


def test_the_comparison_of_shown_code_notices_a_difference() -> None:
    file = 'def f(x):\n    """Say y."""\n    y = 2 * x  # from here\n\n    return y\n\n\nZ = 1\n'
    assert not differs_from_the_file(file, file)
    assert not differs_from_the_file("def f(x):\n    y = 2 * x  # from here\n    return y\n\nZ = 1", file)
    assert not differs_from_the_file("def f(x):\n    # …\n    return y", file)
    assert not differs_from_the_file("y = 2 * x  # from here", file)
    assert differs_from_the_file("y = 3 * x  # from here", file)
    assert differs_from_the_file("y = 2 * x", file)
    assert differs_from_the_file("def f(x):\n    return y", file)


# --- exercises ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda solution: solution.stem)
def test_a_solution_runs_and_asserts_its_claims(
    solution: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (FOLDER / solution.name).exists(), f"{solution.name} solves the exercises of no chapter"
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(solution.read_text("utf-8")))) >= 3
    assert run(solution, tmp_path, monkeypatch) == []
    assert capsys.readouterr().out


# --- notebooks and pictures ---------------------------------------------------------------------------------


@in_every_language
def test_the_notebook_is_that_of_the_script(chapter: Path) -> None:
    rendered = notebook(chapter)
    assert rendered["nbformat"] == 4
    kinds = {"markdown": MARKDOWN, "code": CODE}
    assert [(kinds[cell["cell_type"]], "".join(cell["source"])) for cell in rendered["cells"]] == cells(chapter), (
        f"`make tutorials` was not run after {chapter.name} was changed"
    )


@in_every_language
def test_the_notebook_holds_nothing_of_the_machine_that_made_it(chapter: Path) -> None:
    rendered = notebook(chapter)
    assert set(rendered["metadata"]) == {"kernelspec", "language_info"}
    outputs = 0
    for position, cell in enumerate(rendered["cells"]):
        assert cell["id"] == f"{chapter.stem[:2]}-{position:02d}"
        assert cell["metadata"] == {}
        assert cell.get("execution_count") is None
        for output in cell.get("outputs", []):
            outputs += 1
            assert output.get("execution_count") is None
            assert output["output_type"] in ("stream", "display_data", "execute_result")
            assert output.get("name", "stdout") == "stdout"
            assert "image/svg+xml" not in output.get("data", {})  # GitHub drops parts of it
            text = json.dumps({kind: part for kind, part in output.get("data", {}).items() if kind != "image/png"})
            text += "".join(output.get("text", []))
            assert not re.search(r"(^|[\s'\"(=])(/(tmp|home|root|work|usr|var|Users)/|[A-Z]:\\|file:)", text), text
    assert outputs


def test_every_picture_belongs_to_a_chapter() -> None:
    numbered = [path for path in (FOLDER / "images").iterdir() if re.match(r"\d\d_", path.name)]
    assert {path.name[:2] for path in numbered} <= {chapter.name[:2] for chapter in CHAPTERS}
    for path in numbered:
        assert path.suffix in (".svg", ".gif")
        if path.suffix == ".svg":
            text = path.read_text("utf-8")
            assert "<svg" in text
            assert "<metadata>" not in text  # the day and the program that made it


def luminance(colour: str) -> float:
    """Relative luminance of a colour like 1f7fd4 (WCAG 2)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_colours_of_the_style_are_legible_on_white_and_on_dark() -> None:
    style = (Path(package_file).parent / "tutorial.mplstyle").read_text("utf-8")
    colours = re.findall(r"\b[0-9a-f]{6}\b", re.sub(r"^#.*$", "", style, flags=re.MULTILINE))
    letters = re.findall(r"(?:text|label|title|tick)\.?color: ([0-9a-f]{6})", style)
    assert len(colours) >= 6
    assert letters
    for background in ("ffffff", "0d1117"):  # GitHub's two
        assert min(contrast(colour, background) for colour in colours) >= 3
        assert min(contrast(colour, background) for colour in letters) >= 3.8


def test_pyplot_finds_the_style() -> None:
    import matplotlib.pyplot as plt

    with plt.style.context("stg_np.tutorial"):
        assert plt.rcParams["figure.facecolor"] == "none"


# --- contents and links -------------------------------------------------------------------------------------


def test_the_contents_list_every_chapter_by_its_title() -> None:
    contents = (FOLDER / "README.md").read_text("utf-8")
    listed = re.findall(r"^\| (\d+) \| \[(.+?)\]\(notebooks/(\d\d_\w+)\.ipynb\)", contents, re.MULTILINE)
    titles = [cells(chapter)[0][1].splitlines()[0].removeprefix("# ").split(" · ") for chapter in CHAPTERS]
    assert listed == [(number, title, chapter.stem) for (number, title), chapter in zip(titles, CHAPTERS)]


def test_the_chinese_contents_list_every_translated_chapter_by_its_title() -> None:
    contents = (FOLDER / "README.zh.md").read_text("utf-8")
    listed = re.findall(r"^\| (\d+) \| \[(.+?)\]\(zh/notebooks/(\d\d_\w+)\.ipynb\)", contents, re.MULTILINE)
    titles = [cells(chapter)[0][1].splitlines()[0].removeprefix("# ").split(" · ") for chapter in TRANSLATIONS]
    assert listed == [(number, title, chapter.stem) for (number, title), chapter in zip(titles, TRANSLATIONS)]


def test_the_chinese_cheat_sheet_has_the_formulas_of_the_english_one() -> None:
    pages = [(FOLDER / name).read_text("utf-8") for name in ("cheat_sheet.zh.md", "cheat_sheet.md")]
    translated, original = (re.findall(r"`([^`\n]+)`", page) for page in pages)
    assert translated == original


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page (a notebook's headings, as Jupyter shows them, too)."""
    text = markdown(page.parent.parent / f"{page.stem}.py") if page.suffix == ".ipynb" else page.read_text("utf-8")
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    text = re.sub(r"^```.*?^```$|`[^`\n]*`|\$[^$]*\$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("page", [*PAGES, *CHAPTERS, *TRANSLATIONS], ids=lambda page: f"{page.parent.name}-{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    """Links of a chapter are those of its notebook: relative to the folder of the notebooks."""
    is_chapter = page.suffix == ".py"
    here = notebook_path(page) if is_chapter else page
    for target in links(markdown(page) if is_chapter else page.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        path = (here.parent / name).resolve() if name else here
        assert path.exists(), f"{page.name} links to {target}"
        if anchor and path.suffix in (".md", ".ipynb"):
            assert anchor in anchors(path), f"{page.name} links to {target}"
