"""Digits: 1,797 grey pictures of handwritten digits, 8×8, bundled with the package (values 0 … 16).

The test part of UCI's "Optical Recognition of Handwritten Digits" (E. Alpaydin & C. Kaynak 1998, CC BY 4.0,
doi:10.24432/C50P49; the licence lies beside the file). It has no canonical split. The default test set is the
last 360 pictures in file order: they come from other writers than most of the rest, so it is the hard one.
A ``split_seed`` draws 360 test pictures at random, from each class in proportion: easier, and named as such.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np

from stg_np.data.augment import validation_split
from stg_np.data.base import DataError, Dataset, DatasetInfo, check_file, fingerprint

TEST_SIZE = 360

INFO = DatasetInfo(
    name="digits",
    title="Digits",
    classes=tuple("0123456789"),
    shape=(8, 8, 1),
    train_size=1797 - TEST_SIZE,
    test_size=TEST_SIZE,
    flip=False,
    licence="CC BY 4.0, E. Alpaydin & C. Kaynak, UCI",
    value_range=16,
)

SHA256 = (
    "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"  # of the pixels and then the labels, as bytes
)


def load(split_seed: int | None = None) -> Dataset:
    """Load the bundled digits; ``split_seed`` replaces the default split by a random one, stratified by class.

    Raises:
        DataError: if the bundled file is missing or damaged.
    """
    try:
        with (files("stg_np.data") / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
            pixels, labels = stored["images"], stored["labels"]
    except Exception as error:  # a damaged zip raises one of many kinds
        raise DataError("the bundled digits.npz is missing or damaged: install stg-np again") from error
    check = check_file("digits.npz", np.concatenate([pixels.reshape(-1), labels]), SHA256)
    images, labels = pixels[..., None], labels.astype(np.int64)
    if split_seed is None:
        train, test = np.split(np.arange(len(labels)), [len(labels) - TEST_SIZE])
    else:
        train, test = validation_split(labels, TEST_SIZE / len(labels), split_seed)
    return Dataset(
        name=INFO.name,
        classes=INFO.classes,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        fingerprint=fingerprint([check]),
        official=check.official,
        flip=INFO.flip,
        value_range=INFO.value_range,
        note="test = the last 360 pictures in file order, other writers" if split_seed is None else "",
        split="" if split_seed is None else f"random split, seed {split_seed}",
        source=str(Path(__file__).with_name("digits.npz")),
        files=(check,),
    )
