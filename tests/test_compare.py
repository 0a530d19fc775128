"""Comparisons: what is trained, how a stopped one goes on, and what the report says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stg_np.cli import main
from stg_np.compare.plan import Comparison, Entry, bundled, read_comparison
from stg_np.compare.report import report, spread
from stg_np.compare.trainings import Result, Told, best_factors, compare, pictures_for
from stg_np.compare.trainings import described as described_for
from stg_np.data import Dataset, load
from stg_np.engine import Threads
from stg_np.evaluate import accuracy
from stg_np.presets import PRESETS
from stg_np.runs import checkpoint
from stg_np.runs.description import About
from stg_np.runs.scores import logits_of
from stg_np.train import Run
from tests.training import pictures

LIST = """
about = "are two layers better?"
preset = "rows"
data = "quarters.npz"
seeds = [0, 7]
set.model.width = 4
set.training = {epochs = 2, batch_size = 16, group_size = 8, shift = 0}
[[entry]]
name = "two layers"
set.model.layers = 2
[[entry]]
name = "one layer"
set.model.layers = 1
[[entry]]
name = "cut"
of = "two layers"
set.model.dropout = 0.5
"""


@pytest.fixture(autouse=True)
def _in_a_folder_with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train, test = pictures(60, seed=1), pictures(24, seed=2)
    np.savez("quarters.npz", x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels)
    Path("layers.toml").write_text(LIST)


def run(comparison: Comparison, told: Callable[[Told], None] = lambda _: None, folder: str = "out") -> list[Result]:
    with Threads(1) as engine:
        return compare(comparison, engine, Path(folder), told=told)


def described(comparison: Comparison, entry: Entry, seed: int, dataset: Dataset) -> tuple[Run, About]:
    return described_for(comparison, entry, seed, pictures_for(comparison, seed, dataset))


def untimed(results: list[Result]) -> list[Result]:
    return [result._replace(seconds=None) for result in results]


def test_every_entry_with_every_seed_is_measured_on_what_that_seed_holds_out() -> None:
    comparison = read_comparison("layers.toml")
    results = run(comparison)
    assert [(result.entry, result.seed) for result in results] == [
        ("two layers", 0), ("one layer", 0), ("cut", 0), ("two layers", 7), ("one layer", 7), ("cut", 7),
    ]  # fmt: skip
    two, one, cut = results[:3]
    assert one.parameters < two.parameters == cut.parameters
    assert one.multiply_adds < two.multiply_adds
    assert two.accuracy == cut.accuracy  # dropout is off in a test
    assert cut.seconds is cut.training_loss is None
    dataset = load("quarters.npz")
    for result in (one, results[4]):
        stored = checkpoint.load(Path("out") / f"state-{result.what}.npz")
        held_out = described(comparison, comparison.entries[1], result.seed, dataset)[0].validation
        assert held_out is not None
        with Threads(1) as engine:
            logits = logits_of(stored, held_out.images, engine)
        assert (result.loss, result.accuracy) == accuracy(logits, held_out.labels)


def test_what_is_done_is_not_done_again_and_what_has_changed_is() -> None:
    comparison = read_comparison("layers.toml")
    heard: list[Told] = []
    first = run(comparison)
    assert run(comparison, heard.append) == first
    assert [news.record for news in heard] == [None] * 6
    two, one, cut = comparison.entries
    changed = replace(comparison, entries=(two, replace(one, set={"model": {"layers": 3}}), cut))
    trained: list[str] = []
    again = run(changed, lambda news: trained.append(news.entry) if news.record else None)
    assert set(trained) == {"one layer"}
    assert [result for result in again if result.entry != "one layer"] == [first[0], first[2], first[3], first[5]]


def test_an_entry_may_be_called_otherwise_and_is_not_trained_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "layers.toml", "--workers", "1"]) == 0
    Path("layers.toml").write_text(LIST.replace('"one layer"', '"a single layer"'))
    capsys.readouterr()
    assert main(["compare", "layers.toml", "--workers", "1"]) == 0
    said = capsys.readouterr()
    assert "epoch" not in said.err
    assert "| a single layer | " in said.out


@pytest.mark.parametrize("after", [1, 4, 8])
def test_a_comparison_that_is_stopped_goes_on_to_the_same_results(after: int) -> None:
    comparison = read_comparison("layers.toml")
    epochs: list[Told] = []

    def stop(news: Told) -> None:
        if news.record is not None and news.record.kind == "epoch":
            epochs.append(news)
            if len(epochs) == after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(comparison, stop)
    assert untimed(run(comparison)) == untimed(run(comparison, folder="elsewhere"))


def test_with_fewer_pictures_of_each_class_its_share() -> None:
    comparison = replace(read_comparison("layers.toml"), pictures=20)
    dataset = load("quarters.npz")
    chosen = [described(comparison, comparison.entries[0], seed, dataset)[0].train for seed in (0, 0, 7)]
    assert all(len(examples.labels) == 20 for examples in chosen)
    share = np.bincount(dataset.train_labels) / len(dataset.train_labels)
    assert (np.abs(np.bincount(chosen[0].labels) - 20 * share) < 1.5).all()
    assert (chosen[0].images == chosen[1].images).all()
    assert (chosen[0].images != chosen[2].images).any()
    everything = described(replace(comparison, pictures=10**6), comparison.entries[0], 0, dataset)[0].train
    assert len(everything.labels) == 54


def test_on_the_test_pictures_nothing_is_held_out() -> None:
    comparison, dataset = replace(read_comparison("layers.toml"), on="test"), load("quarters.npz")
    run, about = described(comparison, comparison.entries[0], 0, dataset)
    assert len(run.train.labels) == 60
    assert run.validation is not None
    assert (run.validation.images == dataset.test_images).all()
    assert about.final


def test_of_two_changes_the_entry_s_own_counts_and_another_kind_replaces_the_whole_rule() -> None:
    dataset = load("quarters.npz")
    entry = Entry("mine", {"model": {"width": 6}, "training": {"optimizer": {"kind": "sgd", "learning_rate": 0.5}}})
    run, _ = described(replace(read_comparison("layers.toml"), entries=(entry,)), entry, 3, dataset)
    assert (run.model.width, run.config.epochs, run.config.seed) == (6, 2, 3)  # type: ignore[attr-defined]
    assert (type(run.config.optimizer).__name__, run.config.optimizer.learning_rate) == ("SGD", 0.5)
    entry = Entry("mine", {"training": {"optimizer": {"matrix": {"momentum": 0.5}}}})
    run, _ = described(replace(read_comparison("layers.toml"), entries=(entry,)), entry, 3, dataset)
    assert run.config.optimizer.matrix.momentum == 0.5  # type: ignore[attr-defined]
    assert run.config.optimizer.matrix.learning_rate == 0.01  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", bundled())
def test_every_list_of_the_package_can_be_made(name: str) -> None:
    comparison = read_comparison(name)
    shape, classes = ((32, 32, 3), 10) if PRESETS[comparison.preset].data == "cifar10" else ((8, 8, 1), 10)
    labels = np.repeat(np.arange(classes, dtype=np.uint8), 20)
    images = np.random.default_rng(0).integers(0, 255, (len(labels), *shape), dtype=np.uint8)
    dataset = Dataset.from_arrays(images, labels, images[::4], labels[::4], name="small")
    for entry in comparison.entries:
        run, _ = described(comparison, entry, 0, dataset)
        params, state = run.model.init(np.random.default_rng(0))
        x = np.zeros((1, *shape), np.float32)
        assert run.model.forward(x, params, state)[0].shape == (1, classes)


# --- The search -------------------------------------------------------------------------------------------------------

SEARCHING = (
    LIST
    + """
[search]
factors = [0.5, 2]
seeds = [3]
"""
)


def searching() -> Comparison:
    Path("searching.toml").write_text(SEARCHING)
    return read_comparison("searching.toml")


def test_every_entry_that_is_trained_has_its_rate_searched_on_held_out_pictures() -> None:
    comparison = replace(searching(), on="test")
    results = run(comparison)
    trials, finals = results[:4], results[4:]
    assert [(trial.entry, trial.seed, trial.factor, trial.rate, trial.trial) for trial in trials] == [
        ("two layers", 3, 0.5, 0.005, True), ("two layers", 3, 2.0, 0.02, True),
        ("one layer", 3, 0.5, 0.005, True), ("one layer", 3, 2.0, 0.02, True),
    ]  # fmt: skip
    best = best_factors(trials)
    assert [(final.entry, final.factor, final.trial) for final in finals] == [
        (name, best[of], False) for name, of in 2 * [
            ("two layers", "two layers"), ("one layer", "one layer"), ("cut", "two layers"),
        ]
    ]  # fmt: skip
    dataset = load("quarters.npz")
    held_out = pictures_for(replace(comparison, on="validation"), 3, dataset)
    with Threads(1) as engine:  # the trial of a rate is a training like any other, with that rate
        stored = checkpoint.load(Path("out") / f"state-{trials[1].what}.npz")
        assert stored.about.training.optimizer.learning_rate == 0.02
        assert not stored.about.final
        logits = logits_of(stored, held_out.measured.images, engine)
    assert (trials[1].loss, trials[1].accuracy) == accuracy(logits, held_out.measured.labels)


@pytest.mark.parametrize("after", [3, 9])
def test_a_search_that_is_stopped_goes_on_to_the_same_results(after: int) -> None:
    comparison = searching()
    epochs: list[Told] = []

    def stop(news: Told) -> None:
        if news.record is not None and news.record.kind == "epoch":
            epochs.append(news)
            if len(epochs) == after:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(comparison, stop)
    again: list[Told] = []
    results = run(comparison, again.append)
    assert untimed(results) == untimed(run(comparison, folder="elsewhere"))
    assert {(news.done, news.total) for news in again if news.result} == {(k + 1, 10) for k in range(10)}


def test_the_highest_accuracy_is_chosen_in_the_mean_of_the_seeds_and_then_the_lowest_loss() -> None:
    def trial(entry: str, factor: float, seed: int, accuracy: float, loss: float) -> Result:
        return result(entry, seed, accuracy)._replace(factor=factor, loss=loss, trial=True)

    trials = [
        trial("one", 0.5, 0, 0.9, 0.1), trial("one", 0.5, 1, 0.5, 0.1),
        trial("one", 2, 0, 0.8, 0.9), trial("one", 2, 1, 0.8, 0.9),
        trial("other", 0.5, 0, 0.75, 0.3), trial("other", 1, 0, 0.75, 0.2), trial("other", 2, 0, 0.5, 0.1),
    ]  # fmt: skip
    assert best_factors(trials) == {"one": 2, "other": 1}
    assert best_factors([]) == {}


def test_the_report_of_a_search_shows_every_trial_and_counts_none_of_them() -> None:
    comparison = replace(searching(), entries=(Entry("base"), Entry("other")))
    trials = [
        result("base", 3, share)._replace(factor=factor, rate=rate, trial=True)
        for factor, rate, share in ((0.5, 0.005, 0.25), (2.0, 0.02, 0.75))
    ]
    text = report(comparison, [*trials, result("base", 0, 0.9), result("other", 0, 0.8)], "quarters", "stg-np compare")
    assert "|  | × 0.5 | × 2 | chosen |" in text
    assert "| base | 25.00 | **75.00** | 0.02 |" in text
    assert "| base | 90.00 | 90.00 |" in text
    assert "over one seed" in text
    assert "Learning rates" not in report(comparison, [result("base", 0, 0.9)], "quarters", "stg-np compare")


# --- The report -------------------------------------------------------------------------------------------------------


def result(entry: str, seed: int, accuracy: float) -> Result:
    return Result(entry, seed, "", accuracy, 0.5, 0.25, 0.75, 2.0, 1000, 5000)


def test_differences_are_those_of_the_same_seed() -> None:
    """Seeds differ by ten points here, and the entries, with either seed, by two and by three."""
    comparison = replace(read_comparison("layers.toml"), entries=(Entry("base"), Entry("other"), Entry("missing")))
    results = [result("base", 0, 0.8), result("other", 0, 0.78), result("base", 1, 0.9), result("other", 1, 0.87)]
    text = report(comparison, results, "quarters", "stg-np compare layers.toml")
    assert "| base | 85.00 ± 7.07 | 85.00 |  | 0.500 ± 0.000 | 0.250 ± 0.000 | 1,000 | 5,000 | 2 ± 0 |" in text
    assert "| other | 82.50 ± 6.36 | 82.50 | −2.50 ± 0.50 |" in text
    assert "missing |" not in text
    assert text.startswith("# Are two layers better?\n\n`stg-np compare layers.toml`\n")


@pytest.mark.parametrize(
    ("values", "options", "text"),
    [([], {}, "–"), ([1.25], {}, "1.2"), ([1, 3], {}, "2.0 ± 1.4"), ([1, 3], {"of_the_mean": True}, "2.0 ± 1.0"),
     ([0.5], {"signed": True}, "+0.5"), ([-0.5], {"signed": True}, "−0.5")],
)  # fmt: skip
def test_a_spread(values: list[float], options: dict[str, Any], text: str) -> None:
    assert spread(values, 1, **options) == text


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_report_and_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "layers.toml", "--workers", "1"]) == 0
    said = capsys.readouterr()
    assert said.out == Path("runs/compare-layers/report.md").read_text()
    assert "| two layers | " in said.out
    assert Path("runs/compare-layers/report.png").read_bytes().startswith(b"\x89PNG")
    assert "[1/6] two layers, seed 0: epoch 2, loss" in said.err
    assert "[6/6] cut, seed 7: accuracy " in said.err


WRONG = {
    'about = "x"': "preset",
    'preset = "rows"': "about",
    f"{LIST}[[entry]]\nname = 'cut'": "two entries have one name",
    LIST.replace("[0, 7]", "[0, 0]"): "a seed stands there twice",
    LIST.replace("[0, 7]", "[]"): "an [[entry]] and a seed",
    LIST.replace("[0, 7]", "[-1]"): "pictures and seeds are at least 0",
    LIST.replace('"rows"', '"row"'): "there is no preset 'row': did you mean rows?",
    LIST.replace('of = "two', 'of = "too'): "'too layers' is no entry that is trained: did you mean two layers?",
    LIST.replace("set.model.layers = 1", "set.modle.layers = 1"): "set.modle is neither set.model nor set.training",
    LIST.replace(
        "set.model.layers = 1", "set.model.layer = 1"
    ): "'one layer' cannot be made: model.layer is unknown: did you mean model.layers?",
    LIST.replace(
        "set.model.layers = 1", 'set.model.layers = "1"'
    ): "'one layer' cannot be made: model.layers: expected int",
    LIST.replace("set.model.layers = 1", "set.model.layers = 0"): "'one layer' cannot be made: ",
    f"{LIST}set.training.epochs = 3": "'cut' is not trained, so set.training says nothing",
    LIST.replace("dropout = 0.5", "width = 8"): "'cut' has other parameters than 'two layers': it cannot test those",
    LIST.replace("[[entry]]", "[entry]", 1).split("[[")[0]: "write [[entry]], with two brackets",
    "about = ": "layers.toml is no list to compare by",
    f"{LIST}sed = 1": "sed is unknown",
    SEARCHING.replace("[0.5, 2]", "[]"): "a search needs factors and seeds",
    SEARCHING.replace("[3]", "[]"): "a search needs factors and seeds",
    SEARCHING.replace("[0.5, 2]", "[0, 2]"): "the factors of a search are above 0",
    SEARCHING.replace("[3]", "[-1]"): "its seeds at least 0",
    SEARCHING.replace("[0.5, 2]", "[2, 2]"): "a factor or a seed stands twice in the search",
    SEARCHING.replace("[3]", "[3, 3]"): "a factor or a seed stands twice in the search",
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.items(), ids=range(len(WRONG)))
def test_a_list_that_is_wrong_costs_a_sentence(text: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("layers.toml").write_text(text)
    assert main(["compare", "layers.toml", "--workers", "1"]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1  # nothing has been trained before
    assert said.out == ""


def test_a_list_that_is_not_there_names_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "ablatoin"]) == 2
    assert "there is no comparison ablatoin: did you mean ablation?" in capsys.readouterr().err


def test_a_file_that_is_no_list_of_results_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/results.jsonl").write_text("my notes\n")
    assert main(["compare", "layers.toml", "--workers", "1", "--out", "out"]) == 2
    assert "out/results.jsonl is no list of results" in capsys.readouterr().err
    assert Path("out/results.jsonl").read_text() == "my notes\n"
    Path("reports").mkdir()
    Path("reports/report.md").write_text("my notes\n")
    assert main(["compare", "layers.toml", "--workers", "1", "--out", "reports"]) == 2
    assert "reports holds report.md, but no results.jsonl" in capsys.readouterr().err
    assert Path("reports/report.md").read_text() == "my notes\n"
