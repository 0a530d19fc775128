"""The article claim by claim, in two languages: equal rows and figures, each figure where its row says it stands."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from stg_np.cli import make_parser

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
ENGLISH, CHINESE = PAGES = ("claims.md", "claims.zh.md")
VERDICTS = {
    "holds": "成立", "holds in part": "部分成立", "fails": "不成立", "cannot be tested": "无法检验",
    "not tried yet": "尚未检验",
}  # fmt: skip
LINK = re.compile(r"\[([^\]]+)\]\(([^)#]+)\)")
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
FIGURE = re.compile(rf"{NUMBER.pattern}(?=\s*%)|(?<![A-Za-z0-9_.])\d+(?:,\d{3})*\.\d+(?:e-?\d+)?")
"""What is quoted: a number with a decimal point, or in per cent."""


class Row(NamedTuple):
    """A line of a table of claims."""

    number: str
    claim: str
    tried: str
    found: str
    verdict: str

    @property
    def links(self) -> list[tuple[str, str]]:
        """Words and targets."""
        return LINK.findall(self.tried + self.found)


def cells(page: str) -> list[list[str]]:
    lines = (FOLDER / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


@cache
def rows(page: str) -> list[Row]:
    return [Row(*line) for line in cells(page) if line[0].isdigit()]


def without_names(text: str) -> str:
    """Without code, targets of links and arXiv's numbers, which are no figures."""
    return re.sub(r"`[^`]*`|\]\([^)]*\)|arXiv[: ]\S+", " ", text)


def value(number: str) -> float:
    return float(number.replace(",", ""))


@cache
def numbers_in(target: str) -> frozenset[float]:
    """Every number of a file, and a share also in per cent."""
    found = {value(number) for number in NUMBER.findall((FOLDER / target).read_text(encoding="utf-8"))}
    return frozenset(found | {round(100 * number, 9) for number in found if number <= 1})


by_row = pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{page}-{row.number}") for page in PAGES for row in rows(page)]
)


@pytest.mark.parametrize("page", PAGES)
def test_rows_are_numbered_and_each_has_one_of_five_verdicts(page: str) -> None:
    names = list(VERDICTS if page == ENGLISH else VERDICTS.values())
    assert [row.number for row in rows(page)] == [str(k + 1) for k in range(len(rows(page)))]
    counted = Counter(row.verdict for row in rows(page))
    said = {line[0]: int(line[2]) for line in cells(page) if len(line) == 3 and line[2].isdigit()}
    assert said == {f"**{name}**": counted[f"**{name}**"] for name in names}
    assert sum(said.values()) == len(rows(page)) >= 25


def test_both_languages_have_the_same_verdicts_links_code_and_figures() -> None:
    assert len(rows(ENGLISH)) == len(rows(CHINESE))
    for one, other in zip(rows(ENGLISH), rows(CHINESE)):
        assert other.verdict.strip("*") == VERDICTS[one.verdict.strip("*")], one.number
        translated = [target.replace("tutorials/zh/", "tutorials/") for _, target in other.links]
        assert translated == [target for _, target in one.links], one.number
        for part in ("claim", "tried", "found"):
            texts = [getattr(row, part) for row in (one, other)]
            code = [sorted(re.findall("`([^`]*)`", text)) for text in texts]
            figures = [sorted(NUMBER.findall(without_names(text))) for text in texts]
            assert code[0] == code[1], one.number
            assert figures[0] == figures[1], one.number


@by_row
def test_links_lead_somewhere_and_tests_exist(row: Row) -> None:
    for words, target in row.links:
        assert (FOLDER / target).exists(), target
        if words.startswith("`test_"):
            assert f"def {words.strip('`')}(" in (FOLDER / target).read_text(encoding="utf-8"), words


@by_row
def test_commands_are_ones_that_the_program_knows(row: Row) -> None:
    for command in re.findall(r"`(stg-np [^`]*)`", row.tried):
        make_parser().parse_args(shlex.split(command)[1:])  # a wrong one raises SystemExit


@by_row
def test_every_figure_stands_in_a_file_that_its_row_names(row: Row) -> None:
    """Or in the claim, or is the ten-way accuracy that would belong to a mean one-vs-rest accuracy of the claim."""
    claimed = {value(number) for number in FIGURE.findall(without_names(row.claim))}
    known = claimed | {round(100 - 5 * (100 - mean), 9) for mean in claimed}
    known = known.union(*(numbers_in(target) for _, target in row.links))
    strange = [figure for figure in FIGURE.findall(without_names(row.found)) if value(figure) not in known]
    assert not strange, f"{strange} of row {row.number} in none of {[target for _, target in row.links]}"
