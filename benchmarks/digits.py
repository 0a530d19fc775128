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
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from stg_np.data import load


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


def row(name: str, scores: list[float], seconds: str = "") -> str:
    """One line of the table."""
    listed = " ".join(f"{100 * score:.2f}" for score in scores)
    return f"| {name} | **{100 * median(scores):.2f} %** | {listed} | {seconds} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/digits.md"))
    args = parser.parse_args()
    seeds = range(args.seeds)
    lines = [
        "# Accuracy on digits", "",
        f"`python benchmarks/digits.py --seeds {args.seeds}`: Python {platform.python_version()}, "
        f"NumPy {np.__version__}. Test pictures: 360.", "",
    ]  # fmt: skip
    for split, title in (("default", "The last 360 pictures in file order"), ("random", "360 pictures at random")):
        lines += [f"## {title}", "", "| | median | each seed | s per run |", "| --- | --- | --- | --- |"]
        for final, name in ((False, "STG, `stg-np train`"), (True, "STG, `stg-np train --final`")):
            results = [train_stg(seed, split, final) for seed in seeds]
            lines.append(row(name, [score for score, _ in results], f"{median(s for _, s in results):.0f}"))
            print(lines[-1], flush=True)
        for name, make in peers().items():
            lines.append(row(name, [peer_accuracy(make, seed, split) for seed in seeds]))
            print(lines[-1], flush=True)
        lines.append("")
    args.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
