"""Markdown: the one writer of tables, lists and documents for every result file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def document(title: str, command: str, *blocks: str) -> str:
    """A result file: its title, the command that made it, and blocks with empty lines between them.

    A block that is empty is left out.
    """
    return "\n\n".join([f"# {title}", f"`{command}`", *filter(None, blocks)]) + "\n"


def section(title: str, *blocks: str) -> str:
    """A part of a document under its own title; empty if it has no content."""
    filled = list(filter(None, blocks))
    return "\n\n".join([f"## {title}", *filled]) if filled else ""


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table, or an empty text if it has no rows. Every cell is shown as its ``str``.

    Raises:
        ValueError: if a row is not as long as the head.
    """
    lines = [list(map(cell, row)) for row in rows]
    if any(len(line) != len(head) for line in lines):
        raise ValueError(f"every row needs {len(head)} cells: {', '.join(map(cell, head))}")
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (list(map(cell, head)), rule, *lines)) if lines else ""


def cell(value: object) -> str:
    """A value as one line that does not end its cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def facts_list(facts: Mapping[str, object]) -> str:
    """``* name: value`` for every fact; one without a value is left out."""
    return "\n".join(f"* {name}: {value}" for name, value in facts.items() if value not in ("", None))


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, to three digits."""
    value = 1e3 * seconds
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def with_range(middle: str, low: str, high: str) -> str:
    """A figure in bold, and its spread beside it."""
    return f"**{middle}** ({low}–{high})"
