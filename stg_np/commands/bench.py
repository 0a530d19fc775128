"""``stg-np bench``: speed beside the peers that are installed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from stg_np.commands import FAILED, OK, UsageError, checked_device
from stg_np.commands.options import add_device, add_json, whole

ABOUT = "speed beside peers that are installed, the distance to the machine's limit, and how cost grows"
EPILOG = """\
What is not installed among torch and jax is left out with a note. Let nothing else run meanwhile.

examples:
  stg-np bench --quick                                  tiny sizes: a try-out in a minute, no measurement
  stg-np bench --out benchmarks/results                 everything, about ten minutes
  stg-np bench --only layer --peers torch-lstm,jax-scan
"""


def add_options(parser: Any) -> None:
    """What to measure, beside whom, and where the results go."""
    sections = ("layer", "step", "workers", "growth")
    parser.add_argument("--only", nargs="+", choices=sections, metavar="PART", help=", ".join(sections))
    parser.add_argument("--peers", metavar="NAMES", help="with commas between, or none (default: all installed)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, and nothing that compiles for minutes")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write tables, JSON and pictures there")
    add_json(parser)
    add_device(parser)
    about = "threads on every side (default: one per core)"
    parser.add_argument("--workers", type=whole(1), metavar="N", help=about)


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables (or JSON), and write them into ``--out`` with pictures.

    Exit code 1 if a peer that computes the same does not give the same results.
    """
    from stg_np.bench.suite import SECTIONS, failures, make_options, run_sections

    device = args.device or "cpu"
    workers = checked_device(device, args.workers)
    options = make_options(workers, chosen_peers(args.peers), args.quick, say)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)  # now, rather than after ten minutes
    if device == "cuda":
        from stg_np.bench.cuda import cuda_section

        report: dict[str, Any] = run_sections(options, ()) | {"cuda": cuda_section(options.layers)}
    else:
        report = run_sections(options, args.only or SECTIONS)
    report = {"command": command_of(args), **report}
    if args.out is not None:
        write(report, args.out)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        print("\n".join(documents(report).values()), end="")
    for failure in failures(report):
        say(failure)
    return FAILED if failures(report) else OK


def chosen_peers(text: str | None) -> tuple[str, ...] | None:
    """The names in a list with commas; None: no choice was made; "none": none.

    Raises:
        UsageError: if a name is unknown.
    """
    from stg_np.bench.subjects import PEERS

    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip() not in ("", "none")))
    if unknown := [name for name in names if name not in PEERS]:
        raise UsageError(f"--peers {unknown[0]} is unknown: use some of {', '.join(PEERS)}, or none")
    return names


def command_of(args: argparse.Namespace) -> str:
    """The command that makes these results again."""
    words = ["stg-np bench"]
    for name in ("only", "device", "workers", "peers", "out"):
        value = getattr(args, name)
        if value is not None:
            words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
    return " ".join([*words, *(f"--{name}" for name in ("quick", "json") if getattr(args, name))])


def documents(report: dict[str, Any]) -> dict[str, str]:
    """The markdown by file name."""
    from stg_np.bench.report import growth_markdown, speed_markdown

    found = {}
    if report.keys() & {"layer", "step", "workers", "cuda"}:
        found["speed.md"] = speed_markdown(report, report["command"])
    if "growth" in report:
        found["growth.md"] = growth_markdown(report, report["command"])
    return found


def write(report: dict[str, Any], folder: Path) -> None:
    """``speed.md``, ``.json``, ``.png`` and the same of growth, as far as they were measured."""
    from stg_np.bench.report import growth_png, speed_png

    for name, text in documents(report).items():
        (folder / name).write_text(text, encoding="utf-8")
    speed = {name: value for name, value in report.items() if name != "growth"}
    if speed.keys() & {"layer", "step", "workers", "cuda"}:
        (folder / "speed.json").write_text(json.dumps(speed, indent=1) + "\n", encoding="utf-8")
    if any(speed.get(name) for name in ("layer", "step", "workers")):
        (folder / "speed.png").write_bytes(speed_png(report))
    if "growth" in report:
        growth = {name: report[name] for name in ("command", "machine", "growth")}
        (folder / "growth.json").write_text(json.dumps(growth, indent=1) + "\n", encoding="utf-8")
        (folder / "growth.png").write_bytes(growth_png(report["growth"]))


def say(line: str) -> None:
    """Progress goes to stderr: stdout is the result."""
    print(line, file=sys.stderr, flush=True)
