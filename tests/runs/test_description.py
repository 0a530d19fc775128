"""A description survives JSON and TOML; what came from outside is described or refused in one sentence."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from stg_np.models.stg import STG
from stg_np.optim import SCHEDULES, SGD, AdamW, ByRole, Muon
from stg_np.runs.checkpoint import blank_state
from stg_np.runs.description import about_from, without_none
from stg_np.train import TrainConfig
from tests.runs.described import ABOUT, FACTS


def as_json(table: dict[str, Any]) -> Any:
    """As it comes out of a file."""
    return json.loads(json.dumps(table))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
places = [(section, name) for section in ("data", "model", "training") for name in ABOUT.as_table()[section]]


@given(place=st.sampled_from(places), value=json_values)
def test_whatever_an_entry_holds_it_is_described_or_refused(place: tuple[str, str], value: Any) -> None:
    values = as_json(ABOUT.as_table())
    values[place[0]][place[1]] = value
    try:
        about = about_from(values)
        blank_state(about, room=100_000)
    except (ValueError, OverflowError, MemoryError):
        return
    assert about_from(as_json(about.as_table())) == about


rates, decays = st.floats(1e-9, 1e9), st.floats(0, 1, allow_subnormal=True)
rules = (
    st.builds(SGD, rates, decays, st.sampled_from([0.0, 0.8]), st.booleans())
    | st.builds(AdamW, rates, decays, beta2=st.sampled_from([0.0, 0.999]))
    | st.builds(Muon, rates, decays, iterations=st.integers(1, 9))
)
configs = st.builds(
    TrainConfig,
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(1, 10**6),
    optimizer=rules | st.builds(ByRole, rules, rules, rules, rules),
    schedule=st.sampled_from(sorted(SCHEDULES)),
    flip=st.booleans(),
    shift_padding=st.sampled_from(["reflect", "zero"]),
    seed=st.integers(0, 2**31),
)
models = st.builds(
    STG,
    input_shape=st.just((8, 8, 1)),
    classes=st.just(4),
    view=st.sampled_from(["rows", "patches", "pixels"]),
    width=st.sampled_from([2, 8]),
    recurrent=st.booleans(),
    length=st.floats(0, 1e6),
)


shown = st.characters(exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp"))


@given(config=configs, model=models, label=st.text(shown), seed=st.none() | st.integers(0, 9))
def test_a_description_survives_json_and_toml(config: TrainConfig, model: STG, label: str, seed: int | None) -> None:
    about = replace(ABOUT, training=config, model=model, data=replace(FACTS, label=label, split_seed=seed))
    assert about_from(as_json(about.as_table())) == about
    assert about_from(tomllib.loads(tomli_w.dumps(without_none(about.as_table())))) == about


def with_entry(place: str, value: object) -> dict[str, Any]:
    """A description in which one entry, by its dotted name, is another."""
    values: dict[str, Any] = as_json(ABOUT.as_table())
    *tables, name = place.split(".")
    table = values
    for inner in tables:
        table = table[inner]
    table[name] = value
    return values


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("model.width", "8", "model.width: expected int, got str"),
        ("model.width", True, "model.width: expected int, got bool"),
        ("model.width", 8.5, "model.width"),
        ("model.patch", [4, 4, 4], "model.patch"),
        ("model.kind", "__import__", "kind is one of stg"),
        ("model.view", "sideways", "view is one of"),
        ("model.surprise", 1, "model.surprise is unknown"),
        ("model.length", float("nan"), "model: length must be at least 0, got nan"),
        ("training.epochs", "many", "training.epochs: expected int, got str"),
        ("training.shift_padding", "wrap", "training.shift_padding: invalid enum value 'wrap'"),
        ("training.optimizer.kind", "magic", "kind is one of sgd, adamw, muon, by_role, not 'magic'"),
        ("training.optimizer.matrix.momentum", 1.5, "momentum must be at least 0 and below 1"),
        ("training.optimizer.head.beta2", "much", "training.optimizer.head.beta2: expected float, got str"),
        ("training.optimizer.vector.surprise", 1, "training.optimizer.vector.surprise is unknown"),
        ("training.clip_norm", float("inf"), "training: clip_norm must be above 0, got inf"),
        ("data.mean", [0.5, 0.5], "mean"),
        ("data.mean", [float("nan")], "data.mean cannot be"),
        ("data.classes", "four", "data.classes: expected array, got str"),
        ("data.fingerprint", None, "data.fingerprint: expected str, got null"),
        ("surprise", {"x": {"y": 1}}, "surprise.x.y is unknown"),
        ("surprise", {}, "surprise is unknown"),
        ("a\nb", 1, r"a\nb is unknown"),
        ("data.classes", ["\x1b[2J", "b", "c", "d"], "holds control characters"),
        ("data.label", "\ud800", "holds control characters"),
        ("preset", "\u202eevil", "holds control characters"),
        ("data.label", "x" * 5_000, "more than 4,096 characters"),
        ("training.clip_norm", 10**400, "more than 64 bits"),
        ("training.seed", [[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]], "too many tables"),
        ("device", "tpu", "device is one of"),
    ],
)
def test_the_entry_that_is_wrong_is_named(place: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        about_from(with_entry(place, value))
    assert "\n" not in str(caught.value)


def test_tables_without_end_are_refused() -> None:
    endless: dict[str, Any] = {}
    for _ in range(500):
        endless = {"x": endless}
    with pytest.raises(ValueError, match="too many tables"):
        about_from({**ABOUT.as_table(), "surprise": endless})


def test_whole_numbers_are_numbers() -> None:
    assert about_from(with_entry("training.clip_norm", 2)).training.clip_norm == 2.0
