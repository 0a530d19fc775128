"""Write ``stg_np/data/digits.npz`` from scikit-learn's copy of the UCI digits, and print its SHA-256.

pip install scikit-learn
python benchmarks/make_digits.py
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parents[1] / "stg_np" / "data" / "digits.npz"


def main() -> None:
    digits = import_module("sklearn.datasets").load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    if images.shape != (1797, 8, 8) or not np.array_equal(images, digits.images) or images.max() != 16:
        raise SystemExit("these are not the 1,797 digits of 8x8 with values 0 to 16")
    np.savez_compressed(TARGET, images=images, labels=labels)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")
    print("SHA-256 of the pixels and then the labels:", hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest())


if __name__ == "__main__":
    main()
