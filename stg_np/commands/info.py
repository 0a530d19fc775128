"""``stg-np info``: versions, BLAS, threads and devices of this machine."""

from __future__ import annotations

import argparse
from typing import Any

from stg_np.commands import OK

ABOUT = "versions, BLAS, threads and devices of this machine"
EPILOG = ""


def add_options(parser: Any) -> None:
    """There are none."""


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from stg_np.summary import info_text

    print(info_text())
    return OK
