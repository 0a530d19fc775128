"""The interactive page: it is what the tool writes, it computes what the package computes, and a browser can use it.

The page's own scripts run in Node.js, and the page in a browser without a window; where a machine has neither, these
tests are skipped.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stg_np.backend import Array
from stg_np.data import load
from stg_np.data.pictures import see
from stg_np.engine import Threads
from stg_np.runs import weights
from stg_np.runs.checkpoint import Stored
from stg_np.runs.scores import logits_of
from stg_np.stm import STMParams, stm_backward, stm_forward
from tools import play

NODE = shutil.which("node")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_node = pytest.mark.skipif(NODE is None, reason="there is no Node.js (node), which runs the page's scripts")
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium, which shows the page")


@cache
def page() -> str:
    return play.PAGE.read_text("utf-8")


def embedded(name: str) -> Any:
    """A piece of data in the page."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page(), re.DOTALL)
    assert found
    return json.loads(found[1])


def in_node(expression: str, **values: Any) -> Any:
    """What an expression of JavaScript gives after the page's scripts (those that need no page) have run."""
    maths = re.findall(r'<script class="maths">(.*?)</script>', page(), re.DOTALL)
    assert maths
    code = f"""
    {"".join(maths)}
    const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
    process.stdout.write(JSON.stringify((({{ {", ".join(values)} }}) => {expression})(given), plain));
    """
    done = subprocess.run(
        [str(NODE), "-e", code], input=json.dumps(values), capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- the file -----------------------------------------------------------------------------------------------


def test_the_page_is_what_the_tool_writes() -> None:
    assert page() == play.page(), "`python -m tools.play` was not run after a part of the page was changed"


def test_the_page_needs_no_other_file_and_is_small() -> None:
    without_data = re.sub(r'<script type="application/json".*?</script>', "", page(), flags=re.DOTALL)
    assert not re.search(r"https?:|\bsrc=|<link|@import|url\(|fetch\(|XMLHttp|import\(", without_data)
    assert set(re.findall(r'href="(.*?)"', without_data)) == {"#cell", "#digit"}
    assert len(page().encode()) <= 500_000


def test_data_cannot_end_the_element_that_holds_it() -> None:
    assert "<" not in play.as_json({"text": "</script>"})
    assert json.loads(play.as_json({"text": "</script>"})) == {"text": "</script>"}


def test_the_hard_pictures_are_answered_wrongly_and_the_others_rightly() -> None:
    examples = embedded("test-pictures")
    answers = logits_of_pictures(weights.load(play.WEIGHTS), [example["pixels"] for example in examples]).argmax(1)
    for example, answer in zip(examples, answers):
        assert (answer == example["digit"]) != example["hard"]


# --- the cell -----------------------------------------------------------------------------------------------


@needs_node
@pytest.mark.parametrize(("T", "D", "H"), [(1, 1, 1), (8, 1, 1), (5, 3, 4)])
def test_the_cell_is_the_packages_forward_and_backward(T: int, D: int, H: int) -> None:
    rng = np.random.default_rng((T, D, H))
    x, m_0, dy, dm_T = (rng.standard_normal(shape) for shape in ((1, T, D), (1, H), (1, T, H), (1, H)))
    params = STMParams(rng.standard_normal((D, 4 * H)), rng.standard_normal(4 * H))
    (y, m_T), layer_cache = stm_forward(x, m_0, params)
    dx, dm_0, dparams = stm_backward(dy, dm_T, layer_cache, params)
    there = in_node(
        """{
        const { y, m_T, cache } = stmForward(x, m_0, { W, b });
        return { y, m_T, memories: cache.memories, i: cache.i, ...stmBackward(dy, dm_T, cache, { W }) };
        }""",
        x=x[0].tolist(),
        m_0=m_0[0].tolist(),
        W=params.W.ravel().tolist(),
        b=params.b.tolist(),
        dy=dy[0].tolist(),
        dm_T=dm_T[0].tolist(),
    )
    here = {"y": y, "m_T": m_T, "memories": layer_cache.memories, "i": layer_cache.gates.i}
    here |= {"dx": dx, "dm_0": dm_0, "dW": dparams.W.ravel(), "db": dparams.b}
    for name, array in here.items():
        np.testing.assert_allclose(np.array(there[name]), array[0] if array.ndim > 1 else array, rtol=1e-9, atol=1e-12)


@needs_node
def test_the_gradient_of_a_memory_is_how_the_loss_follows_it() -> None:
    """The page's dm_t, which no function of the package returns: the m_0 of the steps after t, by the package."""
    rng = np.random.default_rng(0)
    x, dy, W, b = (rng.standard_normal(size) for size in (8, 8, 4, 4))
    there = in_node(
        """{
        const { cache } = stmForward(x, [0], { W, b });
        return stmBackward(dy, [0], cache, { W }).dm.map((row) => row[0]);
        }""",
        x=x.reshape(8, 1).tolist(),
        dy=dy.reshape(8, 1).tolist(),
        W=W.tolist(),
        b=b.tolist(),
    )
    params = STMParams(W.reshape(1, 4), b)
    m = np.zeros((1, 1))
    for t in range(8):
        (_, m), step = stm_forward(x[None, t : t + 1, None], m, params)
        own = dy[t] * step.gates.o[0, 0, 0]
        dm_after = 0.0
        if t < 7:
            _, rest = stm_forward(x[None, t + 1 :, None], m, params)
            _, dm_0, _ = stm_backward(dy[None, t + 1 :, None], np.zeros((1, 1)), rest, params)
            dm_after = float(dm_0[0, 0])
        assert there[t] == pytest.approx(own + dm_after, abs=1e-9)


@needs_node
def test_the_presets_do_what_the_page_says_of_them() -> None:
    found = in_node(
        """Object.values(PRESETS).map(({ x, read, w, b }) => {
        const params = { W: Object.values(w), b: Object.values(b) };
        const { y, cache } = stmForward(x.map((value) => [value]), [0], params);
        const { dm } = stmBackward(read.map((value) => [value]), [0], cache, params);
        return [cache.memories, y, dm].map((rows) => rows.map((row) => row[0]));
        })"""
    )
    keep, forget, noise, hide = np.array(found)  # each: memories, outputs, gradients of the memories
    assert keep[0, -1] > 0.85 * keep[0, 0] > 0.7
    assert keep[2, 0] > 0.85 * keep[2, -1]
    np.testing.assert_allclose(forget[0, 1:] / forget[0, :-1], 0.5)
    np.testing.assert_allclose(forget[2, :-1] / forget[2, 1:], 0.5)
    assert noise[0].min() > 0.85 * noise[0, 0] > 0.7
    assert hide[0].min() > 0.7
    assert hide[1, :-1].max() < 0.01 < 0.6 < hide[1, -1]
    assert np.ptp(hide[2]) < 0.15 * hide[2, -1]  # what was hidden adds hardly anything on the way back


# --- the network --------------------------------------------------------------------------------------------


def logits_of_pictures(stored: Stored, pictures: Any) -> Array:
    """The package's logits of pictures that are given row by row."""
    with Threads(1) as engine:
        return logits_of(stored, np.array(pictures, dtype=np.uint8).reshape(-1, 8, 8, 1), engine)


def logits_of_the_page(pictures: list[list[int]]) -> Array:
    answers = in_node(
        "{ const own = unpack(network); return pictures.map((pixels) => networkForward(pixels, own).logits); }",
        network=embedded("network"),
        pictures=pictures,
    )
    return np.array(answers)


def off(logits: Array, expected: Array) -> float:
    """The largest relative error, in proportion to the largest logit of each picture."""
    return float((np.abs(logits - expected).max(1) / np.abs(expected).max(1)).max())


@needs_node
def test_the_networks_answers_are_the_packages() -> None:
    rng = np.random.default_rng(0)
    pictures = [*load("digits").test_images[:8].reshape(8, -1), np.zeros(64, int), *rng.integers(0, 17, (3, 64))]
    rows = [picture.tolist() for picture in pictures]
    there = logits_of_the_page(rows)
    stored = weights.load(play.WEIGHTS)
    assert off(there, logits_of_pictures(stored, rows)) < 1e-5
    data = stored.about.data
    x = (np.array(rows).reshape(-1, 8, 8, 1) / data.value_range - data.mean[0]) / data.std[0]
    params = stored.now.params.with_flat(stored.now.params.flat.astype(np.float64))
    exact, _, _ = stored.about.model.forward(x, params, {})
    assert off(there, exact) < 1e-9


@needs_node
def test_numbers_of_16_bits_are_unpacked() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.isfinite(numbers)
    there = in_node("bits.map(fromHalf)", bits=np.flatnonzero(finite).tolist())
    np.testing.assert_array_equal(np.array(there), numbers[finite].astype(np.float64))


DRAWINGS = {
    "a 1": [[(64, 20), (60, 110)]],
    "a 7 in a corner": [[(80, 8), (118, 8), (95, 60)]],
    "a 0": [[(64 + 40 * np.cos(a), 64 + 50 * np.sin(a)) for a in np.linspace(0, 6.3, 24)]],
    "a 4 in two strokes": [[(50, 20), (40, 70), (95, 70)], [(80, 40), (80, 115)]],
    "a dash": [[(15.5, 63.2), (111.7, 66.1)]],
    "a dot": [[(3, 3)]],
    "a stroke over the edge": [[(-10, 40), (60, 140)]],
}


@needs_node
def test_a_drawing_is_seen_as_predict_sees_it() -> None:
    strokes = [[[[float(x), float(y)] for x, y in stroke] for stroke in strokes] for strokes in DRAWINGS.values()]
    papers, seen = in_node(
        """{
        const papers = drawings.map((strokes) => {
          const paper = emptyPaper();
          for (const line of strokes) line.forEach((point, k) => drawLine(paper, line[Math.max(0, k - 1)], point));
          return paper;
        });
        return [papers, papers.map((paper) => seeDrawing(paper, { side: 8, value_range: 16 }))];
        }""",
        drawings=strokes,
    )
    expected = []
    for name, paper, pixels in zip(DRAWINGS, papers, seen):
        picture = Image.fromarray(np.array(paper, dtype=np.uint8).reshape(128, 128))
        expected.append(see(picture, (8, 8, 1), 16, crop="ink").pixels)
        np.testing.assert_array_equal(np.array(pixels).reshape(8, 8, 1), expected[-1], err_msg=name)
    assert off(logits_of_the_page(seen), logits_of_pictures(weights.load(play.WEIGHTS), expected)) < 1e-5


@needs_node
def test_nothing_is_seen_on_an_empty_paper() -> None:
    assert in_node("seeDrawing(emptyPaper(), { side: 8, value_range: 16 })") == [0] * 64


# --- in a browser -------------------------------------------------------------------------------------------

ALONE = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-extensions --dump-dom"""


@needs_browser
def test_the_page_works_in_a_browser_on_a_small_screen(tmp_path: Path) -> None:
    """The page uses itself by clicks, keys and strokes, in a frame as wide as a telephone, and reports."""
    frame = tmp_path / "telephone.html"
    frame.write_text(
        f"""<iframe name="selftest" style="width: 375px; height: 700px; border: 0" srcdoc="{escape(page())}"></iframe>
        <script>onload = () => document.body.append(frames[0].document.getElementById("report").textContent)</script>
        """,
        "utf-8",
    )
    command = [str(BROWSER), *ALONE.split(), f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)
    found = re.search(r"\{.*\}(?=</body>)", done.stdout)
    assert found, done.stderr
    report = json.loads(unescape(found[0]))
    assert report["errors"] == []
    assert [name for name, passed in report["checks"].items() if not passed] == []
    assert len(report["checks"]) >= 14
    assert report["unlabelled"] == []
    assert report["widths"]["window"] == 375
    assert report["widths"]["page"] <= 375, "one has to scroll sideways"
    pictures = [example["pixels"] for example in embedded("test-pictures")]
    assert off(np.array(report["logits"]), logits_of_pictures(weights.load(play.WEIGHTS), pictures)) < 1e-5
