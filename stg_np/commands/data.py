"""``stg-np data list | fetch | verify``: where data sets lie; download and check them."""

from __future__ import annotations

import argparse
from typing import Any

from stg_np.commands import FAILED, OK
from stg_np.commands.options import add_data_dir, add_debug

ABOUT = "where data sets lie; download and check them"
EPILOG = """\
examples:
  stg-np data list
  stg-np data fetch cifar10                  into the folder that `stg-np info` names; STG_NP_DATA names another
  stg-np data verify cifar10 --data-dir DIR  exit code 1 where a byte is not the publisher's
"""


def add_options(parser: Any) -> None:
    """The three actions, each with its options."""
    from stg_np.data import SOURCES

    actions = parser.add_subparsers(required=True, metavar="ACTION")
    names = ", ".join(SOURCES)
    add_action(actions, list_all, "list", "where each data set lies, or how to get it")
    fetching = add_action(actions, fetch, "fetch", "download the publisher's files, with checksum")
    fetching.add_argument("name", metavar="NAME", help=names)
    about = "check every byte; exit 1 if one is not the publisher's"
    verifying = add_action(actions, verify, "verify", about)
    verifying.add_argument("name", metavar="NAME", help=names)
    add_data_dir(verifying)


def add_action(actions: Any, function: Any, name: str, about: str) -> Any:
    """One action, which ``function`` does."""
    parser = actions.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(action=function)
    add_debug(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do the action that was asked for."""
    code: int = args.action(args)
    return code


def list_all(args: argparse.Namespace) -> int:
    """Say of every data set where it lies, or how to get it."""
    from stg_np.data import list_datasets
    from stg_np.summary import aligned

    found = list_datasets()
    shapes = ["×".join(map(str, row.shape)) for row in found]
    rows = [(row.name, shape, f"{row.train_size:,}", f"{row.test_size:,}") for row, shape in zip(found, shapes)]
    head, *lines = aligned([("name", "shape", "train", "test"), *rows])
    print(f"{head}  where, or how to get it")
    for line, row in zip(lines, found):
        print(f"{line}  {row.where or row.how_to_get}\n    licence: {row.licence}")
    return OK


def fetch(args: argparse.Namespace) -> int:
    """Download a data set, unless its files are there already."""
    from stg_np import data

    dataset = data.fetch(args.name)
    print(f"{dataset.label}: {dataset.source}, every byte is the publisher's")
    return OK


def verify(args: argparse.Namespace) -> int:
    """Read every byte; fail if one is not the publisher's."""
    from stg_np import data

    dataset = data.verify(args.name, args.data_dir)
    for file in dataset.files:
        print(f"{'official' if file.official else 'DIFFERENT'}  {file.sha256}  {file.name}")
    print(f"{dataset.label}: {dataset.source}, fingerprint {dataset.fingerprint}")
    return OK if dataset.official else FAILED
