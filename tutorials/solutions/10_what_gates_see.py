# Solutions of chapter 10, "What gates see".

from pathlib import Path

import numpy as np

import stg_np
from stg_np.backend import Array
from stg_np.data.augment import normalise
from stg_np.explain import explain
from stg_np.ops.losses import log_softmax
from stg_np.runs.weights import load
from stg_np.workspace import Workspace

row, column = np.mgrid[0:32, 0:32]
ship = np.array([150.0, 190, 235]) - row[..., None] * np.array([1.5, 0.8, 0.2])  # the chapter's painting
sea = row >= 21
ship[sea] = (np.array([30, 75, 120]) + 8 * np.sin(1.1 * column + 2 * row)[..., None])[sea]
hull = (row >= 17) & (row <= 22) & (column >= row - 13) & (column <= 28 - 0.7 * (row - 17))
ship[hull] = [60, 40, 45]
ship[12:17, 9:20] = [235, 235, 235]
ship[7:12, 12:16] = [190, 60, 40]
ship += 6 * np.random.default_rng(0).standard_normal(ship.shape)

about, now = load(Path(stg_np.__file__).parent / "weights" / "cifar10.npz")
x = normalise(np.clip(ship, 0, 255).round().astype(np.uint8)[None], *about.data.scaling)
seen = explain(about.model, now.params, now.state, x)

# --- 1. Find a background cell ------------------------------------------------------------------------------
sky = (row < 21) & ~hull
sky[12:17, 9:20] = sky[7:12, 12:16] = False
small_sky = sky.reshape(16, 2, 16, 2).mean((1, 3))
gates = next(layer for layer in seen.layers if layer.name == "stm2").gates.i
likeness = np.array([np.corrcoef(gates[..., cell].ravel(), small_sky.ravel())[0, 1] for cell in range(64)])
print(f"cell {likeness.argmax()} opens at the sky: correlation {likeness.max():.2f}")
assert likeness.max() > 0.5

# --- 2. Which layer? ----------------------------------------------------------------------------------------
number = about.data.classes.index("ship")
lost = {name: seen.probabilities[number] - answers["input gate"][number] for name, answers in seen.without_in.items()}
for name, loss in lost.items():
    print(f"{name}: the ship loses {loss:.2f} when the input gates of this layer are open")
assert max(lost.values()) > 0.1

# --- 3. Does it know left from right? -----------------------------------------------------------------------
# Mirrored pictures are in its training, and a mirrored ship is a ship; pictures upside down are not, and the sea is
# below.


def probability(picture: Array) -> float:
    logits = about.model.forward(np.ascontiguousarray(picture), now.params, now.state, work=Workspace())[0]
    return float(np.exp(log_softmax(logits))[0, number])


as_it_is, mirrored, upside_down = probability(x), probability(x[:, :, ::-1]), probability(x[:, ::-1])
print(f"ship: as it is {as_it_is:.2f}, mirrored {mirrored:.2f}, upside down {upside_down:.2f}")
assert abs(mirrored - as_it_is) < abs(upside_down - as_it_is)
