"""A user's own settings on the command line: what they change, and what contradicts itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stg_np.models.mlp import MLP
from stg_np.models.stg import STG
from stg_np.optim import SGD, AdamW, ByRole, Muon
from stg_np.presets import DEFAULT_PRESET, PRESETS, Preset
from stg_np.runs import checkpoint
from stg_np.runs.experiment import make_run
from stg_np.runs.settings import parse_settings
from stg_np.train import TrainConfig, initial_state
from tests.runs.used import Stg, arrays
from tests.training import pictures


@pytest.fixture(autouse=True)
def tiny(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, ``four.npz``: pictures of four classes; and ``tiny``, a preset of one step an epoch."""
    arrays("four.npz", pictures(40, seed=1), pictures(12, seed=2))
    model = {"view": "rows", "width": 4, "layers": 1}
    monkeypatch.setitem(PRESETS, "tiny", Preset("digits", "for tests", model, TrainConfig(epochs=1, flip=True)))
    monkeypatch.setitem(DEFAULT_PRESET, "digits", "tiny")
    for name in ("curves_png", "confusion_png"):  # they have tests of their own
        monkeypatch.setattr(f"stg_np.runs.plots.{name}", lambda *_: b"a picture")


TINY = ("train", "--preset", "tiny", "--data", "four.npz", "--workers", 1, "--out", "run")
RUN = Path("run/checkpoint.npz")


# ------------------------------------------------------------------------------------------------ single settings


def test_any_entry_of_the_configuration_can_be_set(stg: Stg) -> None:
    changes = [
        "model.view=patches", "model.patch=[4, 2]", "model.width=8", "training.optimizer=adamw",
        "training.optimizer.learning_rate=0.5", "training.flip=True", "training.schedule = cosine",
    ]  # fmt: skip
    result = stg(*TINY, "--set", *changes, "--set", "training.seed=7")
    assert result.code == 0, result.err
    about = checkpoint.load(RUN).about
    assert about.model == STG((8, 8, 1), 4, view="patches", patch=(4, 2), width=8, layers=1)
    assert about.training == TrainConfig(
        epochs=1, optimizer=replace(AdamW(), learning_rate=0.5), flip=True, schedule="cosine", seed=7
    )
    assert "accuracy with mirror averaging" in result.out  # whoever mirrors pictures says that they may be
    assert stg("train", "--resume", "--out", "run").code == 0
    assert stg("eval", "run").out.splitlines()[-1].removeprefix("accuracy") in result.out.splitlines()[-1]


def test_rules_inside_rules_and_other_models(stg: Stg) -> None:
    rules = [
        "training.optimizer.head.momentum=0.5",  # in any order
        "training.optimizer.head=sgd",
        "training.optimizer.matrix.momentum=0",
    ]
    assert stg(*TINY, "--set", "model=mlp", "model.widths=[5]", *rules).code == 0
    about = checkpoint.load(RUN).about
    assert about.model == MLP((8, 8, 1), 4, widths=(5,))
    assert about.training.optimizer == ByRole(matrix=replace(Muon(), momentum=0.0), head=replace(SGD(), momentum=0.5))
    assert not about.training.flip  # pictures of a user's own are not mirrored unless that is said


def test_a_rule_is_exchanged_for_another_with_its_own_defaults() -> None:
    Path("part.toml").write_text("[training.optimizer]\nkind = 'adamw'\nbeta1 = 0.5")
    run = make_run("tiny", config="part.toml", changes=parse_settings(["training.optimizer=by_role"]))
    assert run.about.training.optimizer == ByRole()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--set", "model.widht=8"], ["model.widht", "did you mean model.width?"]),
        (["--set", "epochs=8"], ["did you mean training.epochs?"]),
        (["--set", "training.lerning_rate=8"], ["did you mean training.optimizer.", ".learning_rate?"]),
        (["--set", "training.optimizer=adam"], ["training.optimizer.kind", "did you mean adamw?"]),
        (["--set", "model=[1]"], ["model.kind", "stg"]),
        (["--set", "model.width=wide"], ["model.width", "int"]),
        (["--set", "model.width=7"], ["width 7"]),
        (["--set", "model.width.x=7"], ["model.width"]),
        (["--set", "model.layers=1000000000"], ["model.layers"]),
        (["--set", "model.width=100000", "model.layers=2"], ["parameters"]),
        (["--set", "training.epochs=0"], ["epochs", "at least 1"]),
        (["--set", "training.shift=8"], ["shift", "8x8"]),
        (["--set", "training.clip_norm=nan"], ["clip_norm", "nan"]),
        (["--set", "training.sides=[8, 4]", "training.epochs=3"], ["(B, 8, 8, 1)", "(1, 4, 4, 1)"]),
        (["--set", "..=3"], ["NAME=VALUE"]),
        (["--set", "training.shift_padding=zeros"], ["training.shift_padding", "zeros", "use one of reflect, zero"]),
        (["--set", "training.schedule=lineal"], ["schedule", "lineal", "cosine, linear"]),
        (["--set", "preset=digits"], ["preset is chosen with --preset"]),
        (["--set", "data.name=digits"], ["data.name is chosen with --data"]),
        (["--set", "model.classes=3"], ["model.classes is chosen with --data"]),
        (["--set", "training=fast"], ["training.kind"]),
        (["--set", "model.width"], ["--set", "NAME=VALUE"]),
        (["--set", "model.width=1\nx=2"], ["model.width", "int"]),
        (["--set", "model.width=8", "--set", "model.width=16"], ["set twice", "8", "16"]),
        (["--set", "training.epochs=2", "--epochs", "3"], ["training.epochs", "set twice", "2", "3"]),
        (["--set", "training.optimizer.head.learning_rate=2", "--learning-rate", "3"], ["--learning-rate", "both"]),
        (["--set", "model.width=8", "--resume"], ["--resume", "--set"]),
        (["--config", "config.toml", "--resume"], ["--resume", "--config"]),
        (["--init-from", "run", "--resume"], ["--resume", "--init-from"]),
        (["--init-from", "nothing"], ["nothing"]),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_sentence(stg: Stg, arguments: list[str], parts: list[str]) -> None:
    assert stg(*TINY, *arguments).refused(*parts)
    assert not Path("run").exists()


# ------------------------------------------------------------------------------------------------ configurations


def test_the_configuration_of_a_run_makes_it_again(stg: Stg) -> None:
    first = ("train", "--preset", "tiny", "--split", "random", "--seed", 3, "--workers", 1, "--out", "run")
    assert stg(*first, "--set", "model.width=6", "training.flip=true").code == 0
    again = ("train", "--config", "run/config.toml", "--workers", 1, "--out")
    assert stg(*again, "again").code == 0
    assert Path("again/config.toml").read_bytes() == Path("run/config.toml").read_bytes()
    assert (
        checkpoint.load(RUN).now.params.flat.tobytes()
        == checkpoint.load(Path("again/checkpoint.npz")).now.params.flat.tobytes()
    )
    assert stg(*again, "other", "--data", "four.npz", "--seed", 4, "--set", "model.layers=2").code == 0
    about = checkpoint.load(Path("other/checkpoint.npz")).about
    assert about.model == STG((8, 8, 1), 4, width=6, layers=2)
    assert (about.data.name, about.data.split_seed, about.training.seed) == ("./four.npz", None, 4)
    assert not about.training.flip  # the first pictures might be mirrored; nobody has said so of these


def test_a_part_of_a_configuration_is_enough(stg: Stg) -> None:
    Path("part.toml").write_text("final = true\n[model]\nwidth = 6\n[training]\nflip = true\nbatch_size = 9\n")
    assert stg(*TINY, "--config", "part.toml").code == 0
    about = checkpoint.load(RUN).about
    assert about.final
    assert about.model == STG((8, 8, 1), 4, width=6, layers=1)
    assert (about.training.batch_size, about.training.flip) == (9, True)


def test_pictures_of_a_folder_get_the_size_of_the_configuration(stg: Stg) -> None:
    for kind in ("dark", "light"):
        Path("own", kind).mkdir(parents=True)
        for k in range(10):
            Image.new("L", (20, 20), 200 if kind == "light" else k).save(Path("own", kind, f"{k}.png"))
    assert stg("train", "--data", "own", "--preset", "tiny", "--size", 6, "--out", "run").code == 0
    assert stg("train", "--config", "run/config.toml", "--out", "again").code == 0
    assert checkpoint.load(Path("again/best.npz")).about == checkpoint.load(Path("run/best.npz")).about
    assert stg("train", "--config", "run/config.toml", "--size", 8, "--out", "larger").code == 0
    assert checkpoint.load(Path("larger/best.npz")).about.model.input_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("preset = 'digits'", ["preset digits", "tiny"]),
        ("init_from = '01234567'", ["--init-from", "01234567"]),
        ("model = 3", ["model.kind", "3"]),
        ("[model]\nwidht = 3", ["did you mean model.width?"]),
        ("[model]\ninput_shape = [0, 8, 1]", ["model.input_shape"]),
        ("[data]\nname = 'digits'", ["data", "label"]),
        ("colour = 3", ["colour"]),
        ("= 3", ["part.toml is no configuration"]),
        ("x = '" + "x" * 300_000 + "'", ["part.toml", "bytes"]),
        (None, ["part.toml", "name the config.toml of a run"]),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_one_sentence(stg: Stg, text: str | None, parts: list[str]) -> None:
    if text is not None:
        Path("part.toml").write_text(text)
    assert stg(*TINY, "--config", "part.toml").refused(*parts)


# --------------------------------------------------------------------------------------- parameters of another run


def test_a_run_goes_on_from_the_parameters_of_another(stg: Stg) -> None:
    assert stg(*TINY, "--set", "model.width=6", "training.flip=true").code == 0
    result = stg("train", "--init-from", "run", "--data", "four.npz", "--workers", 1, "--out", "next")
    assert result.code == 0, result.err
    assert "note: begins with the parameters of run/best.npz (trained on four.npz (fingerprint" in result.out
    assert "drawn anew" not in result.out
    assert "held out or tested" not in result.out
    first, second = (checkpoint.load(Path(run, "best.npz")) for run in ("run", "next"))
    assert replace(second.about, init_from=None) == first.about
    assert first.now.improved_at == second.now.step == 1
    run = make_run(init_from="run", out="third")
    assert run.start.step == 0
    assert run.start.params.flat.tobytes() == first.now.params.flat.tobytes()
    assert "init_from" in Path("next/config.toml").read_text()
    assert stg("train", "--config", "next/config.toml", "--out", "more").refused("--init-from")
    assert stg("train", "--resume", "--out", "next").code == 0
    from_package = stg("train", "--init-from", "digits", "--data", "four.npz", "--epochs", 1, "--out", "tuned")
    assert "digits.npz (trained on digits" in from_package.out
    seen = stg("train", "--init-from", "run/best.npz", "--seed", 1, "--out", "leaking")
    assert "note: among what is held out or tested here" in seen.out


def test_other_classes_get_a_new_head(stg: Stg) -> None:
    assert stg(*TINY).code == 0
    old = checkpoint.load(Path("run/best.npz")).now.params
    arrays("others.npz", pictures(40, seed=3), pictures(12, seed=4), classes=("a", "b", "c", "d"))
    for data in ("digits", "others.npz"):
        run = make_run(data=data, init_from="run/best.npz", out=data)
        drawn, params = initial_state(run.run).params, run.start.params
        for name in params:
            expected = drawn if name.startswith("head.") else old
            assert params[name].tobytes() == expected[name].tobytes()
        assert any("drawn anew" in note for note in run.notes)
    result = stg("train", "--init-from", "run", "--data", "digits", "--set", "model.width=8", "--out", "wide")
    assert result.refused("run/best.npz does not fit", "stm1.right.W is 8×8, and here it is 8×16")


# ---------------------------------------------------------------------------------------------------- patience


def test_patience_ends_a_training_and_says_so(stg: Stg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stg_np.train.accuracy", lambda *_: (1.0, 0.5))
    result = stg(*TINY, "--epochs", 9, "--patience", 2)
    assert result.code == 0, result.err
    assert "stopped after epoch 3 of 9: no better validation accuracy for 2 epochs" in result.out
    assert checkpoint.load(RUN).now.step == 3
    assert "patience = 2" in Path("run/config.toml").read_text()
    assert stg("train", "--resume", "--out", "run", "--patience", 3).refused("--patience 3", "--patience 2")
    assert "stopped after epoch 3" in stg("train", "--resume", "--out", "run").out


def test_patience_needs_pictures_that_are_held_out(stg: Stg) -> None:
    assert stg(*TINY, "--patience", 2, "--final").refused("--final", "--patience")
