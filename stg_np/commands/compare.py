"""``stg-np compare``: several models, several seeds, one table with the spread."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from stg_np.commands import OK, UsageError
from stg_np.commands.options import add_data_dir, add_engine, engine_for, some_folder
from stg_np.compare.plan import ComparisonError, bundled, read_comparison
from stg_np.runs.archive import write_atomically
from stg_np.streams import note, say

if TYPE_CHECKING:
    from stg_np.compare.trainings import Result, Told

ABOUT = "train several models with several seeds, and write a table with the spread"
EPILOG = f"""\
A list is a TOML file, or the name of one of the package: {", ".join(bundled())}. The quickest, digits, is the default.

A list of your own:
  about = "is a wider network better?"
  preset = "digits"
  seeds = [0, 1, 2]
  set.training.epochs = 10
  [[entry]]
  name = "96 wide"
  [[entry]]
  name = "192 wide"
  set.model.width = 192

With these two lines each entry's learning rate is searched first, on held-out pictures, as many trials for each:
  [search]
  factors = [0.25, 0.5, 1, 2, 4]

What is measured are pictures held out of the training pictures. The same command goes on where it was stopped. The
folder then holds report.md, report.png, results.jsonl and the trained networks, which eval and predict take.

examples:
  stg-np compare                                     a few minutes, on the bundled digits
  stg-np compare baselines                           STG, LSTM, GRU, MLP, CNN …, each with its own learning rate
  stg-np compare ablation --out runs/ablation        what each part of the image STG is worth: hours
  stg-np compare mine.toml --out runs/mine
"""


def add_options(parser: Any) -> None:
    """The list, and where the results go."""
    parser.add_argument("list", nargs="?", default="digits", metavar="LIST", help="a file, or a name (default: digits)")
    parser.add_argument(
        "--out", type=some_folder, metavar="DIR", help="folder of the results (default: runs/compare-LIST)"
    )
    add_data_dir(parser)
    add_engine(parser)


def run(args: argparse.Namespace) -> int:
    """Train what is not trained yet, and write the report after each result."""
    from stg_np.compare.report import picture, report
    from stg_np.compare.trainings import compare

    folder = args.out or Path("runs") / f"compare-{Path(args.list).stem}"
    command = shlex.join(["stg-np", "compare", args.list])
    refuse_reports_of_others(folder)
    try:
        comparison = read_comparison(args.list)
        results: list[Result] = []
        teller = Teller()

        def told(news: Told) -> None:
            teller.tell(news)
            if news.result is not None:
                results.append(news.result)
            if news.result is not None and engine.is_root:
                write_atomically(folder / "report.md", report(comparison, results, news.label, command).encode())

        with engine_for(args.engine, None, args.workers) as engine:
            compare(comparison, engine, folder, data_dir=args.data_dir, told=told)
        if not engine.is_root:
            return OK
        write_atomically(folder / "report.png", picture(comparison, results))
    except ComparisonError as error:
        raise UsageError(str(error)) from None
    say((folder / "report.md").read_text(encoding="utf-8").rstrip())
    return OK


def refuse_reports_of_others(folder: Path) -> None:
    """Where there are no results, a report is not one of ours, and would be overwritten.

    Raises:
        UsageError: if there is one.
    """
    from stg_np.compare.trainings import RESULTS

    found = [name for name in ("report.md", "report.png") if os.path.lexists(folder / name)]
    if found and not (folder / RESULTS).exists():
        raise UsageError(
            f"{folder} holds {' and '.join(found)}, but no {RESULTS} of a comparison: choose another folder with --out"
        )


class Teller:
    """A line for each epoch and for each result, on stderr."""

    def __init__(self) -> None:
        self.began, self.at_first = perf_counter(), -1

    def tell(self, news: Told) -> None:
        """Say where the comparison stands."""
        who = f"{news.entry}, seed {news.seed}"
        if news.record is not None and news.record.kind == "epoch":
            record = news.record
            self.at_first = news.done if self.at_first < 0 else self.at_first
            note(f"[{news.done + 1}/{news.total}] {who}: epoch {record.epoch}, loss {record.loss:.3f}, "
                 f"accuracy {record.accuracy:.4f}, {record.images_per_second:,.0f} images/s")  # fmt: skip
        if news.result is not None:
            trained = news.done - self.at_first if self.at_first >= 0 else 0
            left = (news.total - news.done) * (perf_counter() - self.began) / trained if trained else 0
            ahead = f"; about {left / 60:.0f} min left" if left else ""
            note(f"[{news.done}/{news.total}] {who}: accuracy {news.result.accuracy:.4f}{ahead}")
