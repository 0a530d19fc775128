"""Digits: 1,797 grey pictures of handwritten digits, 8×8, bundled with the package (values 0 … 16).

The test part of UCI's "Optical Recognition of Handwritten Digits" (E. Alpaydin & C. Kaynak 1998, CC BY 4.0,
doi:10.24432/C50P49; the licence lies beside the file). It has no canonical split. The default test set is the
last 360 pictures in file order: they come from other writers than most of the rest, so it is the hard one.
With a ``split_seed``, :func:`stg_np.data.load` draws 360 test pictures at random instead: easier, and named as such.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
    official_split=False,
    ink=True,
)

SYSTEM_FOLDERS: tuple[Path, ...] = (Path(__file__).parent,)
FILE = "digits.npz"

SHA256 = (
    "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"  # of the pixels and then the labels, as bytes
)


def fetch(folder: Path) -> Path:
    """Nothing needs to be downloaded: where the file lies in the package."""
    return SYSTEM_FOLDERS[0] / FILE


def locate(path: Path) -> Path | None:
    """The file of the package, where ``path`` is its folder; it is looked for nowhere else."""
    return path / FILE if path in SYSTEM_FOLDERS else None


def load(path: Path) -> Dataset:
    """Load the bundled digits.

    Raises:
        DataError: if ``path`` is another file, or the file is missing or damaged.
    """
    if path != SYSTEM_FOLDERS[0] / FILE:
        raise DataError("digits comes with the package and is read from no folder: leave the data folder out")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            pixels, labels = stored["images"], stored["labels"]
    except Exception as error:  # a damaged zip raises one of many kinds
        raise DataError(f"the bundled {FILE} is missing or damaged: install stg-np again") from error
    check = check_file(FILE, np.concatenate([pixels.reshape(-1), labels]), SHA256)
    train_images, test_images = np.split(pixels[..., None], [len(labels) - TEST_SIZE])
    train_labels, test_labels = np.split(labels.astype(np.int64), [len(labels) - TEST_SIZE])
    return Dataset(
        name=INFO.name,
        classes=INFO.classes,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        fingerprint=fingerprint([check]),
        official=check.official,
        flip=INFO.flip,
        value_range=INFO.value_range,
        note="test = the last 360 pictures in file order, other writers",
        source=str(path),
        files=(check,),
    )
