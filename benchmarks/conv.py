"""The fast convolution beside PyTorch's: forward and backward (dx, dW, db), 3×3, float32, NHWC.

    python benchmarks/conv.py --out benchmarks/results/conv.md

PyTorch gets the same memory (a "channels last" tensor is NHWC), the same random numbers and the same number of threads
in all: its own intra-operation threads there, shards of the batch on Python threads with one BLAS thread each here.
Every subject runs in a process of its own; they take turns, one pass each per round, so that what else happens on the
machine happens to all. Before anything is timed, all results are compared with the plain convolution in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stg_np.backend import Array
from stg_np.engine import Threads, available_cores
from stg_np.fast import conv as fast_conv
from stg_np.ops import conv
from stg_np.ops.conv import ConvParams
from stg_np.workspace import Workspace

RESULTS = ("y", "dx", "dW", "db")
ALLOWED_ERROR = {"stg_np": 1e-4, "stg_np, columns": 1e-5, "torch": 1e-5}
"""Of the largest entry: Winograd F(4×4) rounds more than a sum of products."""
WARM_UP = 3


class Case(NamedTuple):
    """One layer: pictures of side × side pixels."""

    batch: int
    side: int
    C_in: int
    C_out: int

    def draw(self) -> tuple[Array, Array, ConvParams]:
        """x, dy and the parameters: the same in every process."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.batch, self.side, self.side, self.C_in), np.float32)
        dy = rng.standard_normal((self.batch, self.side, self.side, self.C_out), np.float32)
        W = rng.standard_normal((3, 3, self.C_in, self.C_out), np.float32) / np.float32(3 * self.C_in**0.5)
        return x, dy, ConvParams(W, rng.standard_normal(self.C_out, np.float32))

    @property
    def flops(self) -> float:
        """Of the definition, for y, dx and dW, a multiplication and an addition counted as two."""
        return 3 * 2 * 9 * self.batch * self.side**2 * self.C_in * self.C_out


CASES = (Case(64, 32, 64, 64), Case(64, 16, 128, 128), Case(64, 8, 256, 256), Case(64, 32, 3, 64))


# --- subjects: a function that does all the work once and returns y, dx, dW, db --------------------------------


def plain(case: Case, dtype: Any) -> list[Array]:
    """What the others are compared with."""
    x, dy, params = case.draw()
    params = ConvParams(*(array.astype(dtype) for array in params))
    y, cache = conv.conv2d_forward(x.astype(dtype), params)
    dx, dparams = conv.conv2d_backward(dy.astype(dtype), cache, params)
    return [y, dx, *dparams]


def ours(case: Case, workers: Threads) -> Callable[[], list[Array]]:
    """The fast path on shards of the batch, each with a workspace; the gradients of the parameters are summed."""
    x, dy, params = case.draw()
    workspaces = [Workspace() for _ in range(workers.count)]
    shards = list(zip(np.array_split(x, workers.count), np.array_split(dy, workers.count), workspaces))

    def shard(part: tuple[Array, Array, Workspace]) -> tuple[Array, Array, ConvParams]:
        x, dy, work = part
        y, cache = fast_conv.conv2d_forward(x, params, work=work)
        return y, *fast_conv.conv2d_backward(dy, cache, params, work=work)

    def run() -> list[Any]:
        ys, dxs, dparams = zip(*workers.map(shard, shards))
        return [ys, dxs, *(sum(parts[1:], start=parts[0]) for parts in zip(*dparams))]

    return run


def torchs(case: Case, threads: int) -> Callable[[], list[Any]]:
    """``torch.nn.functional.conv2d`` and its gradients."""
    import torch

    torch.set_num_threads(threads)
    x, dy, (W, b) = case.draw()
    images = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()  # channels last
    kernel = torch.from_numpy(W.transpose(3, 0, 1, 2).copy()).permute(0, 3, 1, 2).requires_grad_()  # channels last
    bias = torch.from_numpy(b).requires_grad_()
    doutput = torch.from_numpy(dy).permute(0, 3, 1, 2)

    def run() -> list[Any]:
        output = torch.nn.functional.conv2d(images, kernel, bias, padding=1)
        return [output, *torch.autograd.grad(output, (images, kernel, bias), doutput)]

    return run


def as_arrays(subject: str, results: list[Any]) -> dict[str, Array]:
    """The results as NumPy arrays in this package's axes."""
    if subject == "torch":
        y, dx, dW, db = (result.detach().numpy() for result in results)
        arrays = [y.transpose(0, 2, 3, 1), dx.transpose(0, 2, 3, 1), dW.transpose(2, 3, 1, 0), db]
    else:
        arrays = [np.concatenate(results[0]), np.concatenate(results[1]), *results[2:]]
    return dict(zip(RESULTS, arrays))


def work(subject: str, case: Case, threads: int, results: Path) -> None:
    """The process of one subject: writes its results, then answers every line on stdin with the seconds of one pass."""
    with Threads(threads) as workers:
        if subject == "stg_np, columns":
            fast_conv.choose = lambda x_shape, W_shape: "columns"
        run = torchs(case, threads) if subject == "torch" else ours(case, workers)
        np.savez(results, **as_arrays(subject, run()))  # type: ignore[arg-type]
        for _ in range(WARM_UP):
            run()
        print("ready", flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            run()
            print(time.perf_counter() - began, flush=True)


# --- the driver ----------------------------------------------------------------------------------------------


class Process:
    """A subject in a process of its own."""

    def __init__(self, subject: str, case: Case, threads: int, results: Path) -> None:
        command = [
            sys.executable,
            __file__,
            "--worker",
            subject,
            json.dumps(case),
            str(results),
            "--threads",
            str(threads),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)},
        )  # fmt: skip
        self._answer()

    def seconds(self) -> float:
        """Of one pass, run now."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._answer())

    def end(self) -> None:
        """Close its standard input, which ends it."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a subject ended with exit code {self._process.wait()}: see its message above")
        return line.strip()


def measure(case: Case, subjects: list[str], threads: int, rounds: int) -> tuple[dict[str, Array], dict[str, float]]:
    """Seconds per round, and the worst error, of every subject.

    Raises:
        RuntimeError: if a result is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {subject: Path(folder, f"{number}.npz") for number, subject in enumerate(subjects)}
        processes = {subject: Process(subject, case, threads, file) for subject, file in files.items()}
        exact = dict(zip(RESULTS, plain(case, np.float64)))
        errors = {subject: worst_error(subject, file, exact) for subject, file in files.items()}
    seconds: dict[str, list[float]] = {subject: [] for subject in subjects}
    for _ in range(rounds):
        for subject, process in processes.items():
            time.sleep(0.01)  # threads of the one before stop spinning
            seconds[subject].append(process.seconds())
    for process in processes.values():
        process.end()
    return {subject: np.array(measured) for subject, measured in seconds.items()}, errors


def worst_error(subject: str, file: Path, exact: dict[str, Array]) -> float:
    """Of y, dx, dW, db: the largest difference relative to the largest entry."""
    with np.load(file) as results:
        errors = {
            name: float(np.abs(results[name] - exact[name]).max() / np.abs(exact[name]).max()) for name in RESULTS
        }
    if max(errors.values()) > ALLOWED_ERROR[subject]:
        raise RuntimeError(f"{subject} is wrong: {errors}")
    return max(errors.values())


def table(case: Case, seconds: dict[str, Array], errors: dict[str, float]) -> list[str]:
    """One section of the report."""
    way = fast_conv.choose((case.batch, case.side, case.side, case.C_in), (3, 3, case.C_in, case.C_out))
    lines = [
        f"## {case.C_in} → {case.C_out} channels, {case.side}×{case.side}, batch {case.batch} (chosen: {way})", "",
        "| | ms: median (quartiles) | GFLOP/s of the definition | PyTorch's time / this (quartiles) | worst error |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for subject, own in seconds.items():
        low, middle, high = np.percentile(1e3 * own, (25, 50, 75))
        ratio = "not installed"
        if "torch" in seconds:
            quartiles = np.percentile(seconds["torch"] / own, (25, 75))
            ratio = f"**{np.median(seconds['torch']) / np.median(own):.2f}×** ({quartiles[0]:.2f} … {quartiles[1]:.2f})"
        rate = case.flops / np.median(own) / 1e9
        lines.append(
            f"| {subject} | {middle:.1f} ({low:.1f} … {high:.1f}) | {rate:.0f} | {ratio} | {errors[subject]:.1e} |"
        )
    return [*lines, ""]


def sgemm_rate(n: int = 1024) -> float:
    """GFLOP/s of one NumPy matrix product with all BLAS threads, the best of ten."""
    a = np.ones((n, n), np.float32)
    out, best = np.empty_like(a), np.inf
    for _ in range(10):
        began = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=min(2, available_cores()))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/conv.md"))
    parser.add_argument("--worker", nargs=3, metavar=("SUBJECT", "CASE", "RESULTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        subject, case, results = args.worker
        work(subject, Case(*json.loads(case)), args.threads, Path(results))
        return
    try:
        subjects, torch = ["stg_np", "stg_np, columns", "torch"], f"PyTorch {version('torch')}"
    except PackageNotFoundError:
        subjects, torch = ["stg_np", "stg_np, columns"], "PyTorch is not installed"
    lines = [
        "# Convolution 3×3, forward + backward (y, dx, dW, db), float32, NHWC", "",
        f"`python benchmarks/conv.py --threads {args.threads} --rounds {args.rounds}`: "
        f"Python {platform.python_version()}, NumPy {np.__version__}, {torch}; {args.threads} threads each, "
        f"{available_cores()} cores; NumPy's sgemm {sgemm_rate():.0f} GFLOP/s. {args.rounds} rounds in turns. Error: "
        "against the plain convolution in float64, relative to the largest entry, the worst of y, dx, dW, db.", "",
    ]  # fmt: skip
    for case in CASES:
        section = table(case, *measure(case, subjects, args.threads, args.rounds))
        print("\n".join(section), flush=True)
        lines += section
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
