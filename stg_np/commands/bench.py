"""``stg-np bench``: speed beside the peers that are installed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stg_np.commands import FAILED, OK, UsageError, checked_device
from stg_np.commands.options import add_device, add_json, some_folder, whole
from stg_np.strict_json import to_json

if TYPE_CHECKING:
    from stg_np.bench.report import ResultFile
    from stg_np.bench.suite import Options

ABOUT = "speed beside peers that are installed, the distance to the machine's limit, and how cost grows"
EPILOG = """\
What is not installed among torch and jax is left out with a note. Let nothing else run meanwhile.
Where the time goes: `py-spy record --native --subprocesses -o profile.svg -- stg-np bench --only layer --peers none`.

examples:
  stg-np bench --quick                                  tiny sizes: a try-out in seconds, no measurement
  stg-np bench --out benchmarks/results                 everything, about ten minutes
  stg-np bench --only conv                              the convolution alone
  stg-np bench --only layer --peers torch-lstm,jax-scan
"""


def add_options(parser: Any) -> None:
    """What to measure, beside whom, and where the results go."""
    from stg_np.bench.suite import SECTIONS

    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="PART", help=", ".join(SECTIONS))
    parser.add_argument("--peers", metavar="NAMES", help="with commas between, or none (default: all installed)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, and nothing that compiles for minutes")
    parser.add_argument("--out", type=some_folder, metavar="DIR", help="write tables, JSON and pictures there")
    add_json(parser)
    add_device(parser)
    about = "threads on every side (default: one per core)"
    parser.add_argument("--workers", type=whole(1), metavar="N", help=about)


def run(args: argparse.Namespace) -> int:
    """Measure, print the result files (or JSON), and write them into ``--out`` with pictures.

    Exit code 1 if somebody who should compute the same does not.
    """
    from stg_np.bench.remote import BenchError
    from stg_np.bench.suite import failures, make_options

    workers = checked_device(args.device or "cpu", args.workers)
    options = make_options(workers, chosen_peers(args.peers), args.quick, say)
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)  # now, rather than after ten minutes
    try:
        report = {"command": command_of(args), **measure(args, options)}
    except BenchError as error:  # of this package itself; those of the peers are in the report
        say(f"stg_np: {error}")
        return FAILED
    if args.out is not None:
        write(report, args.out)
    if args.json:
        print(to_json(report, indent=1))
    else:
        print("\n".join(file.text(report) for file in files_of(report).values()), end="")
    for failure in failures(report):
        say(failure)
    return FAILED if failures(report) else OK


def measure(args: argparse.Namespace, options: Options) -> dict[str, Any]:
    """The sections that are asked for; on a GPU its own instead."""
    from stg_np.bench.suite import SECTIONS, run_sections

    if args.device == "cuda":
        from stg_np.bench.cuda import cuda_section

        return run_sections(options, ()) | {"cuda": cuda_section(options.sizes["layer"])}
    return run_sections(options, args.only or tuple(SECTIONS))


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
    """The command that measures this again (where its results go is the reader's business)."""
    words = ["stg-np bench"]
    for name in ("only", "device", "workers", "peers"):
        value = getattr(args, name)
        if value is not None:
            words += [f"--{name}", *(value if isinstance(value, list) else [str(value)])]
    return " ".join([*words, *(["--quick"] if args.quick else [])])


def files_of(report: dict[str, Any]) -> dict[str, ResultFile]:
    """The result files of which something was measured, by name."""
    from stg_np.bench.report import FILES

    return {name: file for name, file in FILES.items() if any(report.get(part) for part in file.sections)}


def write(report: dict[str, Any], folder: Path) -> None:
    """Each result file as ``.md`` and ``.json``, some as ``.png`` too."""
    for name, file in files_of(report).items():
        (folder / f"{name}.md").write_text(file.text(report), encoding="utf-8")
        own = {part: value for part, value in report.items() if part in ("command", "machine", *file.sections)}
        (folder / f"{name}.json").write_text(json.dumps(own, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if file.picture is not None:
            (folder / f"{name}.png").write_bytes(file.picture(report))


def say(line: str) -> None:
    """Progress goes to stderr: stdout is the result."""
    print(line, file=sys.stderr, flush=True)
