"""The STG as a classifier of scikit-learn, held to scikit-learn's own checks of estimators."""

from __future__ import annotations

import importlib.util
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HAS_SKLEARN = importlib.util.find_spec("sklearn") is not None
needs_sklearn = pytest.mark.skipif(not HAS_SKLEARN, reason="scikit-learn is not installed: pip install --group test")
SMALL: dict[str, Any] = {
    "width": 4, "layers": 1, "epochs": 4, "batch_size": 16, "learning_rate": 0.05, "random_state": 0,
}  # fmt: skip


def classifier(**settings: Any) -> Any:
    from stg_np.sklearn import STGClassifier

    return STGClassifier(**{**SMALL, **settings})


def stripes(count: int = 90, seed: int = 0) -> tuple[Any, Any]:
    """Flattened pictures (count, 24) of 4×6 pixels with a bright row, named after it."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 3, count)
    pictures = rng.uniform(0, 1, (count, 4, 6))
    pictures[np.arange(count), rows] += 2
    return pictures.reshape(count, 24), np.array(["a", "b", "c"])[rows]


def test_without_scikit_learn_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['sklearn'] = None; import stg_np.sklearn"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'stg-np[sklearn]'" in done.stderr.splitlines()[-1]


@needs_sklearn
@pytest.mark.filterwarnings("ignore")  # of scikit-learn's own, about the checks that it leaves out
def test_it_is_what_scikit_learn_calls_an_estimator() -> None:
    checks = importlib.import_module("sklearn.utils.estimator_checks")
    results = checks.check_estimator(classifier(), on_fail=None, on_skip=None)
    assert [result for result in results if result["status"] not in ("passed", "skipped")] == []


@needs_sklearn
def test_a_search_over_a_pipeline() -> None:
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    X, y = stripes()
    pipeline = make_pipeline(MinMaxScaler(), classifier(image_shape=(4, 6), width=8, epochs=12))
    search = GridSearchCV(pipeline, {"stgclassifier__learning_rate": [1e-6, 0.05]}, cv=2).fit(X, y)
    assert search.best_params_ == {"stgclassifier__learning_rate": 0.05}
    assert search.score(*stripes(seed=1)) > 0.6  # a guess is right once in three
    np.testing.assert_allclose(search.predict_proba(X).sum(1), 1)


@needs_sklearn
def test_the_example_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text()
    (code,) = re.findall(r"^```py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 0.7


@needs_sklearn
def test_rows_held_out_choose_the_epoch_and_a_copy_says_the_same() -> None:
    X, y = stripes()
    fitted = classifier(image_shape=(4, 6, 1), view="patches", patch=(2, 3), validation_fraction=0.2).fit(X, y)
    assert len(fitted.validation_scores_) == len(fitted.loss_curve_) == 4
    assert fitted.validation_scores_[fitted.n_iter_ - 1] == max(fitted.validation_scores_)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_log_proba(X), fitted.predict_log_proba(X))
    assert set(fitted.predict(X)) <= set(fitted.classes_) == {"a", "b", "c"}


@needs_sklearn
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_shape": (5, 5)}, "does not fit X, which has 24 features"),
        ({"image_shape": (24,)}, "does not fit X"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"width": 3}, "cannot be halved"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"image_shape": (4, 6), "view": "columns"}, "view is one of"),
    ],
)
def test_parameters_are_checked_by_fit(settings: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        classifier(**settings).fit(*stripes())
