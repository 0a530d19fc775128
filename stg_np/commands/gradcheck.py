"""``stg-np gradcheck``: every forward/backward pair of the package against finite differences."""

from __future__ import annotations

import argparse
from typing import Any

from stg_np.commands import FAILED, OK, checked_device
from stg_np.commands.options import add_device, add_json, whole
from stg_np.strict_json import to_json

ABOUT = "hold every forward/backward pair and the whole model against finite differences; exit 1 if one fails"
EPILOG = ""


def add_options(parser: Any) -> None:
    """The seed, and how to print."""
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of the inputs (default: %(default)s)")
    add_json(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Check everything, and print a table (or JSON)."""
    from stg_np.checks import run_checks
    from stg_np.gradcheck import format_table

    device = args.device or "cpu"
    checked_device(device, None)
    reports = run_checks(device=device, seed=args.seed)
    print(to_json([report.to_dict() for report in reports], indent=2) if args.json else format_table(reports))
    return OK if all(report.ok for report in reports) else FAILED
