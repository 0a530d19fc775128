"""Put a trained network into the package: ``python -m tools.bundle runs/cifar10-fast cifar10``."""

from __future__ import annotations

import sys
from pathlib import Path

from stg_np.runs import weights
from stg_np.runs.chosen import chosen_state


def main(run: str, name: str) -> None:
    """The state to use of a run (or of a checkpoint), under a name."""
    path, stored = chosen_state(Path(run), "cpu")
    file = weights.bundle(name, stored)
    print(f"{path}, trained on {stored.about.data.label} -> {file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
