"""The animated picture of a sweep: it is what the tool draws, and it shows what the recurrence says."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from stg_np.backend import Array
from tools import sweep_picture
from tools.sweep_picture import CELL, TAU

SVG = "{http://www.w3.org/2000/svg}"


def drawn(group: ElementTree.Element | None) -> Array:
    """The opacities of the pixels in a part of the picture, (8, 8)."""
    values = np.zeros((8, 8))
    assert group is not None
    for pixel in group.iter(f"{SVG}rect"):
        if opacity := pixel.get("fill-opacity"):
            values[int(pixel.attrib["y"]) // CELL, int(pixel.attrib["x"]) // CELL] = float(opacity)
    return values


def swept(image: Array) -> Array:
    """m ← (1 − u) m + u v from left to right, pixel by pixel."""
    memories = np.zeros_like(image)
    for y, row in enumerate(image):
        m = 0.0
        for x, v in enumerate(row):
            m = (1 - 1 / TAU) * m + v / TAU
            memories[y, x] = m
    return memories


def test_the_picture_is_what_the_tool_draws() -> None:
    text = sweep_picture.PICTURE.read_text("utf-8")
    assert text == sweep_picture.svg(sweep_picture.digit()), "`python -m tools.sweep_picture` was not run"
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "prefers-reduced-motion" in text


@pytest.mark.parametrize(("direction", "turns"), [("right", 0), ("down", 1), ("left", 2), ("up", 3)])
def test_each_memory_is_that_of_its_sweep(direction: str, turns: int) -> None:
    """The picture is turned so that its sweep goes to the right; its lines are filled in that order."""
    root = ElementTree.parse(sweep_picture.PICTURE).getroot()
    panel = root.find(f".//*[@id='{direction}']")
    assert panel is not None
    expected = swept(np.rot90(sweep_picture.digit(), turns))
    found = np.rot90(drawn(panel), turns)
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=0.011)
    for number in range(8):
        line = np.rot90(drawn(panel.find(f"{SVG}g[@class='line l{number + 1}']")), turns)
        np.testing.assert_array_equal(np.delete(line, number, axis=1), 0)
