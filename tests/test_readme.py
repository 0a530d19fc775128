"""Everything in the README that can be run is run, and what it points to exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stg_np.cli import make_parser
from stg_np.data import SOURCES
from stg_np.runs.experiment import chosen_preset, folder_path

ROOT = Path(__file__).resolve().parent.parent
CHINESE = "README.zh.md"  # its blocks are those of README.md, which are run
PAGES = ["README.md", "CONTRIBUTING.md", "tutorials/README.md"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


PYTHON = [pytest.param(code, id=f"{page}-{k}") for page in PAGES for k, code in enumerate(blocks(page, "python"))]


@pytest.mark.parametrize("code", PYTHON)
def test_python_blocks_run(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "a block", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    assert printed
    if "test accuracy" in printed:
        assert float(printed.split()[-1]) > 0.8


def lines_of(page: str) -> list[str]:
    """The commands of a page, in the order in which they stand."""
    lines = "\n".join(blocks(page, "sh")).splitlines()
    return [found for line in lines if (found := line.split("#")[0].strip())]


def commands() -> list[str]:
    return sorted({line for page in PAGES for line in lines_of(page) if line.startswith("stg-np ") and "|" not in line})


@pytest.mark.parametrize("command", commands())
def test_commands_are_ones_that_the_program_knows(command: str) -> None:
    make_parser().parse_args(shlex.split(command)[1:])  # a wrong one raises SystemExit


def test_the_commands_of_the_readme_work_in_the_order_in_which_they_stand() -> None:
    """The program is found, no training meets the folder of an earlier one, and what a command uses was made before."""
    lines = lines_of("README.md")
    assert lines.index("make train") < lines.index(". .venv/bin/activate")
    assert not [line for line in lines if "pip install" in line and "-e" not in shlex.split(line)]
    made = {"runs/digits", *re.findall(r'out="(.*?)"', "".join(blocks("README.md", "python")))}
    fetched = {None, "digits"}
    for number, line in enumerate(lines):
        words = shlex.split(line)
        if words[0] != "stg-np":
            continue
        assert number > lines.index(". .venv/bin/activate")
        out = training_folder(words[1:])
        assert {
            str(Path(word).parent if "." in word else word) for word in words if word.startswith("runs/")
        } <= made | {out}
        if words[1:3] == ["data", "fetch"]:
            fetched.add(words[3])
        if out is not None:
            assert (out in made) == any(word in ("--resume", "--overwrite") for word in words), line
            assert {words[k + 1] for k, word in enumerate(words) if word == "--data"} & SOURCES.keys() <= fetched, line
            made.add(out)


def training_folder(arguments: list[str]) -> str | None:
    """Where a training would leave its run; None: it is another command."""
    args = make_parser().parse_args(arguments)
    if arguments[0] != "train":
        return None
    return str(args.out or folder_path(None, args.preset or chosen_preset(None, args.data)))


@pytest.mark.parametrize("page", [*PAGES, CHINESE, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        if not target.startswith(("http://", "https://")):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


# --- in Chinese ---------------------------------------------------------------------------------------------


def sections(page: str) -> list[str]:
    """What stands under each heading, code left out."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.split(r"^##? ", text, flags=re.MULTILINE)[1:]


def figures(text: str) -> set[str]:
    """The numbers with a decimal point or in per cent, without those in code and in targets of links."""
    words = re.sub(r"`[^`\n]*`|\]\([^)]*\)", " ", text)
    return set(re.findall(r"\d[\d,]*\.\d+(?:e-?\d+)?|\d+(?= ?%)", words))


def without_comments(code: str) -> list[str]:
    return [line.split("#")[0].rstrip() for line in code.splitlines()]


@pytest.mark.parametrize("language", ["sh", "python", "py"])
def test_the_chinese_readme_has_the_code_of_the_readme(language: str) -> None:
    translated = [without_comments(code) for code in blocks(CHINESE, language)]
    assert translated == [without_comments(code) for code in blocks("README.md", language)]


def test_the_chinese_readme_has_the_sections_tables_and_figures_of_the_readme() -> None:
    translated, original = sections(CHINESE), sections("README.md")
    assert len(translated) == len(original)
    for here, there in zip(translated, original):
        title = here.splitlines()[0]
        for sign in (r"^\|", r"^\* ", r"^!\["):
            assert len(re.findall(sign, here, re.MULTILINE)) == len(re.findall(sign, there, re.MULTILINE)), (
                title,
                sign,
            )
        assert figures(here) == figures(there), f"{CHINESE}, {title}: {figures(here) ^ figures(there)}"


@pytest.mark.parametrize("page", ["README.md", CHINESE])
def test_links_within_a_readme_lead_to_a_heading(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    headings = {section.splitlines()[0].lower().replace(" ", "-") for section in sections(page)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings
