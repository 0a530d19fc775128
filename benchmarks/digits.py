"""Accuracy on digits: the STG of ``stg-np train`` beside kNN, an SVM and an MLP, on the same pictures.

    python benchmarks/digits.py --seeds 5 --out benchmarks/results/digits.md

Two splits. *Last 360*: the test pictures are the last 360 in file order, drawn by other writers than the first
ones; what a method makes of handwriting that it has not seen. *Random*: 360 drawn at random (stratified), so the same
writers stand on both sides; one split per seed. Each STG is trained by the command line in a process of its own, with
default options: a tenth of the training pictures is held out to choose the epoch. The others (scikit-learn) train on
all 1,437 training pictures, with the settings that are printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from stg_np.data import load
from stg_np.machine import describe
from stg_np.tables import document, facts_list, section, table

ABOUT = """There are 360 test pictures, so one is 0.28 points. `stg-np train` holds out a tenth of the training pictures
and tests the epoch that does best on them; with `--final` all are trained on, as the other methods do, and the last
epoch is tested."""


def train_stg(seed: int, split: str, final: bool) -> tuple[float, float]:
    """Test accuracy and wall seconds of one ``stg-np train``."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--seed", str(seed), "--split", split, "--out", f"{folder}/run", *(["--final"] if final else [])]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "stg_np", "train", *options], check=True, capture_output=True)
        seconds = time.perf_counter() - began
        records = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    return records[-1]["accuracy"], seconds


def peers() -> dict[str, Any]:
    """Usual classifiers, by what a reader would type."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    return {
        "kNN (k = 1)": lambda seed: KNeighborsClassifier(1),
        "kNN (k = 5)": lambda seed: KNeighborsClassifier(5),
        "SVM (RBF, gamma 0.001, C 10)": lambda seed: SVC(C=10, gamma=0.001),
        "MLP 128-64 (ReLU, Adam)": lambda seed: MLPClassifier((128, 64), max_iter=500, random_state=seed),
    }


def peer_accuracy(make: Any, seed: int, split: str) -> float:
    """Test accuracy of a scikit-learn classifier on pixels 0 … 16."""
    data = load("digits", split_seed=seed if split == "random" else None)
    model = make(seed).fit(data.train_images.reshape(len(data.train_labels), -1), data.train_labels)
    predicted = model.predict(data.test_images.reshape(len(data.test_labels), -1))
    return float(np.mean(predicted == data.test_labels))


def rows_of(split: str, seeds: range) -> Iterator[tuple[str, ...]]:
    """Every method on one of the two splits: a row of the table as soon as it is known."""
    for final, name in ((False, "STG, `stg-np train`"), (True, "STG, `stg-np train --final`")):
        runs = [train_stg(seed, split, final) for seed in seeds]
        yield row(name, [score for score, _ in runs], f"{median(seconds for _, seconds in runs):.0f}")
    for name, make in peers().items():
        yield row(name, [peer_accuracy(make, seed, split) for seed in seeds], "")


def row(name: str, scores: list[float], seconds: str) -> tuple[str, ...]:
    """The median of the accuracies, and each of them."""
    return name, f"**{100 * median(scores):.2f} %**", " ".join(f"{100 * score:.2f}" for score in scores), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/digits.md"))
    args = parser.parse_args()
    titles = {"default": "The last 360 pictures in file order: writers not seen in training",
              "random": "360 pictures at random, one split per seed"}  # fmt: skip
    parts = []
    for split, title in titles.items():
        rows = []
        for cells in rows_of(split, range(args.seeds)):
            rows.append(cells)
            print(*cells, file=sys.stderr, flush=True)
        parts.append(section(title, table(("", "median", "each seed", "s per run"), rows)))
    machine = describe() | {"scikit-learn": version("scikit-learn")}
    command = f"python benchmarks/digits.py --seeds {args.seeds}"
    args.out.write_text(document("Accuracy on digits", command, facts_list(machine), ABOUT, *parts), encoding="utf-8")


if __name__ == "__main__":
    main()
