"""Everything in the README that can be run is run, and what it points to exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stg_np.cli import make_parser

ROOT = Path(__file__).resolve().parent.parent
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


def commands() -> list[str]:
    text = "\n".join(block for page in PAGES for block in blocks(page, "sh"))
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return sorted({line for line in lines if line.startswith("stg-np ") and "|" not in line})


@pytest.mark.parametrize("command", commands())
def test_commands_are_ones_that_the_program_knows(command: str) -> None:
    make_parser().parse_args(shlex.split(command)[1:])  # a wrong one raises SystemExit


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        if not target.startswith(("http://", "https://")):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
