"""Kill a rank at random moments, and see what is left: ``python -m tools.kill_ranks [--rounds 30]`` (Linux).

In each round ``mpiexec -n 3 stg-np train --engine mpi`` begins a small run, and one of its ranks, drawn at random, gets
SIGKILL at a random moment: of its start, one time in seven, else of any epoch. Then all ranks must be gone within 10
seconds, and the last checkpoint must be whole; and the run, resumed by one process or by two ranks, must end in the
bits of one that nobody has disturbed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from time import perf_counter, sleep

from stg_np import machine
from stg_np.engine import Threads
from stg_np.runs import checkpoint
from stg_np.runs.archive import CheckpointError
from stg_np.runs.experiment import resume_run
from stg_np.tables import document, facts_list, table

LIMIT = 10.0
"""Seconds in which all ranks must be gone."""
RANKS = 3
TRAIN = ["-m", "stg_np", "train", "--workers", "1"]
EPOCHS = 6
SMALL = ["--epochs", str(EPOCHS), "--batch-size", "192", "--set", "training.group_size=64", "model.width=16"]
MARK = "STG_NP_KILL_ROUND"


def mpiexec(ranks: int) -> list[str]:
    beside = Path(sys.executable).parent / "mpiexec"
    return [str(beside) if beside.exists() else "mpiexec", "-n", str(ranks)]


def marked(mark: str) -> dict[str, int]:
    """The processes of a round: the number of each, by its rank."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            settings = (process / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue  # it has just ended
        ranks = [text.removeprefix("PMI_RANK=") for text in settings if text.startswith("PMI_RANK=")]
        if f"{MARK}={mark}" in settings and ranks:
            found[ranks[0]] = int(process.name)
    return found


def digest(folder: Path) -> tuple[int, str]:
    """The steps of the last checkpoint, and a digest of its state."""
    now = checkpoint.load(folder / "checkpoint.npz").now
    arrays = sorted(checkpoint.arrays_of(now).items())
    return now.step, hashlib.sha256(b"".join(array.tobytes() for _, array in arrays)).hexdigest()


def run(*arguments: str) -> None:
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def epochs_done(folder: Path) -> int:
    """As far as they are written down; −1 before the first step."""
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().count('"kind": "epoch"') if metrics.exists() else -1 + (folder / "config.toml").exists()


def wait_for(folder: Path, epochs: int, started: subprocess.Popen[bytes]) -> float:
    """Wait until so many epochs are done; return the seconds."""
    began = perf_counter()
    while epochs_done(folder) < epochs and started.poll() is None:
        sleep(0.005)
    return perf_counter() - began


def with_ranks(folder: Path, mark: str) -> subprocess.Popen[bytes]:
    """The run, begun by ranks that can be found by the mark."""
    command = [*mpiexec(RANKS), sys.executable, *TRAIN, "--engine", "mpi", *SMALL, "--out", str(folder)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env={**os.environ, MARK: mark}, stdout=quiet, stderr=quiet)


def one_round(number: int, folder: Path, start: float, epoch: float, wanted: tuple[int, str]) -> tuple[str, ...]:
    """What happened: rank, moment, seconds until all were gone, steps saved, who resumed, and whether all is well."""
    mark = f"{os.getpid()}-{number}"
    started = with_ranks(folder, mark)
    moment = random.uniform(-1, EPOCHS)
    if moment < 0:
        sleep(start * (1 + moment))
    else:
        wait_for(folder, int(moment), started)
        sleep(epoch * (moment % 1))
    while len(ranks := marked(mark)) < RANKS and started.poll() is None:
        sleep(0.01)
    rank, process = random.choice(sorted(ranks.items())) if ranks else ("none", 0)
    began = perf_counter()
    if process:
        os.kill(process, signal.SIGKILL)
    while marked(mark) or started.poll() is None:
        if perf_counter() - began > LIMIT:
            return f"{rank}", f"{moment:.2f}", f"more than {LIMIT:.0f}", "", "", "**NO**"
        sleep(0.01)
    gone = perf_counter() - began
    try:
        steps = f"{digest(folder)[0]}"
        by = "two ranks" if number % 3 == 2 else "one process"
        if by == "two ranks":
            run(*mpiexec(2), sys.executable, *TRAIN, "--engine", "mpi", "--resume", "--out", str(folder))
        else:
            with resume_run(folder) as experiment, Threads(1) as engine:
                deque(experiment.train(engine), maxlen=0)
        same = digest(folder) == wanted
    except CheckpointError as error:
        begun = (folder / "checkpoint.npz").exists()
        steps, by, same = str(error) if begun else "not begun", "", not begun
    return rank, f"{moment:.2f}", f"{gone:.2f}", steps, by, "yes" if same else "**NO**"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as at:
        run(sys.executable, *TRAIN, *SMALL, "--out", f"{at}/alone")
        wanted = digest(Path(at, "alone"))
        ranks = Path(at, "ranks")
        undisturbed = with_ranks(ranks, "undisturbed")
        start = wait_for(ranks, 0, undisturbed)
        epoch = wait_for(ranks, EPOCHS, undisturbed) / EPOCHS
        undisturbed.wait()
        assert digest(ranks) == wanted, "the ranks come to other bits, even undisturbed"
        rows = []
        for number in range(args.rounds):
            rows.append(one_round(number, Path(at, f"{number}"), start, epoch, wanted))
            print(*rows[-1], sep="\t", file=sys.stderr, flush=True)
    head = [
        "rank killed",
        "in epoch (below 0: at the start)",
        "all gone after s",
        "steps saved",
        "resumed by",
        "ends in the undisturbed bits",
    ]
    well = sum(row[-1] == "yes" for row in rows)
    facts = machine.describe() | {
        "rounds": f"{well} of {len(rows)} as they should be",
        "undisturbed": f"{start:.1f} s to start, {epoch:.2f} s an epoch",
    }
    command = f"python -m tools.kill_ranks --rounds {args.rounds} --seed {args.seed}"
    about = (__doc__ or "").partition("\n\n")[2].strip()
    print(document("Ranks killed at random moments", command, about, facts_list(facts), table(head, rows)), end="")
    return 0 if well == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
