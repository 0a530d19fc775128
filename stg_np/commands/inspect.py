"""The commands that look and do not train: ``gradcheck``, ``data``, ``summary``, ``info``."""

from __future__ import annotations

import argparse
import json

import numpy as np

from stg_np.commands import FAILED, OK, checked_device


def gradcheck(args: argparse.Namespace) -> int:
    """Hold every forward/backward pair against finite differences."""
    from stg_np.checks import run_checks
    from stg_np.gradcheck import format_table

    device = args.device or "cpu"
    checked_device(device, None)
    reports = run_checks(device=device, seed=args.seed or 0)
    print(json.dumps([report.to_dict() for report in reports], indent=2) if args.json else format_table(reports))
    return OK if all(report.ok for report in reports) else FAILED


def data_list(args: argparse.Namespace) -> int:
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


def data_fetch(args: argparse.Namespace) -> int:
    """Download a data set, unless its files are there already."""
    from stg_np.data import fetch

    dataset = fetch(args.name)
    print(f"{dataset.label}: {dataset.source}, every byte is the publisher's")
    return OK


def data_verify(args: argparse.Namespace) -> int:
    """Read every byte; fail if one is not the publisher's."""
    from stg_np.data import verify

    dataset = verify(args.name, args.data_dir)
    for file in dataset.files:
        print(f"{'official' if file.official else 'DIFFERENT'}  {file.sha256}  {file.name}")
    print(f"{dataset.label}: {dataset.source}, fingerprint {dataset.fingerprint}")
    return OK if dataset.official else FAILED


def summary(args: argparse.Namespace) -> int:
    """The layers of a preset's model, or of a checkpoint's."""
    from stg_np.presets import PRESETS
    from stg_np.runs.folder import load
    from stg_np.summary import DATASETS, summary_text

    if args.checkpoint is not None:
        about, now = load(args.checkpoint, "cpu")
        print(f"{args.checkpoint}: preset {about.preset}, trained on {about.data.label}, state after step {now.step:,}")
        print(summary_text(about.model, now.params))
        return OK
    name = args.preset or "digits"
    info = DATASETS[PRESETS[name].data]
    model = PRESETS[name].make_model(info.shape, len(info.classes))
    print(f"preset {name} on {info.name}: {PRESETS[name].about}")
    print(summary_text(model, model.init(np.random.default_rng(0))[0]))
    return OK


def info(args: argparse.Namespace) -> int:
    """Versions, BLAS, threads, devices."""
    from stg_np.summary import info_text

    print(info_text())
    return OK
