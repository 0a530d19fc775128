"""Presets: a data set, a model and hyper-parameters that belong together, chosen on validation pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from stg_np.models import MODELS
from stg_np.models.base import Model
from stg_np.optim import SGD, AdamW, ByRole, Muon, with_learning_rate
from stg_np.train import TrainConfig


@dataclass(frozen=True)
class Preset:
    """A starting point for a training.

    Attributes:
        data: the data set's name. about: one line.
        model: the fields of the model besides shape and classes. config: the hyper-parameters.
        kind: of the model, a name in :data:`~stg_np.models.MODELS`.
    """

    data: str
    about: str
    model: dict[str, Any] = field(default_factory=dict)
    config: TrainConfig = field(default_factory=TrainConfig)
    kind: str = "stg"

    def make_model(self, shape: tuple[int, ...], classes: int) -> Model:
        """The model for pictures of ``shape`` (height, width, c)."""
        model: Model = MODELS[self.kind](input_shape=shape, classes=classes, **self.model)
        return model


def at(learning_rate: float) -> ByRole:
    """Muon for matrices and kernels, AdamW for vectors and the head, at one learning rate."""
    return with_learning_rate(ByRole(), learning_rate)


def at_fixed_norm(kernels: float, vectors: float, head: float) -> ByRole:
    """What an image STG learns fast with, at three rates: Muon at a fixed norm, plain momentum for the rest."""
    muon = Muon(kernels, 0.0, 0.6, fixed_norm=True)
    return ByRole(matrix=muon, kernel=muon, vector=SGD(vectors, 0.0, 0.85), head=SGD(head, 0.0, 0.85))


FAST_RECIPE = TrainConfig(
    epochs=8, batch_size=1000, group_size=125, schedule="linear", warmup=0.0, optimizer=at_fixed_norm(0.24, 4.0, 0.8),
    label_smoothing=0.2, clip_norm=1e6, flip=True, flip_in_turn=True, shift=2,
)  # fmt: skip
"""Large batches, high rates, few epochs."""


ONE_WAY = {"width": 32, "layers": 2, "bidirectional": False, "pool": "last"}
"""Strictly from left to right: one direction, and the head sees what the last step gives."""


def adding(steps: int, epochs: int, batch_size: int = 32) -> Preset:
    """The adding problem; each epoch has other 1,000 sequences."""
    config = TrainConfig(
        epochs=epochs, batch_size=batch_size, group_size=batch_size // 2, optimizer=AdamW(0.01), warmup=0.05,
        label_smoothing=0.0,
    )  # fmt: skip
    about = f"the sum of the two numbers that are marked among {steps} steps; drawn afresh"
    return Preset(f"adding-{steps}", about, ONE_WAY, config)


def copying(delay: int, epochs: int) -> Preset:
    """Copy memory; each epoch has other 1,000 sequences, and the head answers at every step."""
    config = TrainConfig(
        epochs=epochs, batch_size=32, group_size=16, optimizer=AdamW(0.005), warmup=0.05, label_smoothing=0.0
    )
    about = f"ten symbols, to be repeated after a delay, in {delay + 20} steps; drawn afresh"
    return Preset(f"copy-{delay}", about, ONE_WAY | {"width": 128, "layers": 3, "pool": "none"}, config)


def beside(preset: Preset, kind: str, about: str, **fields: Any) -> Preset:
    """The same data, recipe and stack with another kind of network, of about as many parameters."""
    return replace(preset, kind=kind, about=about, model={**preset.model, **fields})


PRESETS = {
    "digits": Preset(
        "digits",
        "8×8 digits as 16 patches of 2×2; the bundled data, well under a minute",
        {"view": "patches", "patch": (2, 2), "width": 96, "layers": 3, "alternate": True},
        TrainConfig(
            epochs=40, batch_size=32, group_size=16, optimizer=at(0.01), rotate=10.0, shift=1, shift_padding="zero"
        ),
    ),
    "digits-mlp": Preset(
        "digits",
        "dense layers of 128 and 64: the network that the article's code makes, beside which the STG is to be seen",
        {"widths": (128, 64)},
        TrainConfig(
            epochs=40, batch_size=32, group_size=16, optimizer=at(0.01), rotate=10.0, shift=1, shift_padding="zero"
        ),
        kind="mlp",
    ),
    "digits-image": Preset(
        "digits",
        "8×8 maps that stay maps, memory that sweeps them: the most accurate on the digits",
        {"widths": (32, 64), "stem": 6, "sweeping": (2, 4), "head_scale": 1 / 3, "norm_rate": 0.1},
        TrainConfig(
            epochs=20,
            batch_size=48,
            group_size=48,
            schedule="linear",
            warmup=0.0,
            optimizer=at_fixed_norm(0.12, 1.0, 0.4),
            clip_norm=1e6,
            shift=1,
            shift_padding="zero",
        ),
        kind="image-stg",
    ),
    "fashion-rows": Preset(
        "fashion-mnist",
        "28 rows of 28 pixels, one row a step",
        {"view": "rows", "width": 160, "layers": 3},
        TrainConfig(epochs=15, optimizer=at(0.01), flip=True, shift=2, shift_padding="zero"),
    ),
    "cifar10-rows": Preset(
        "cifar10",
        "32 rows of 32 coloured pixels, one row a step",
        {"view": "rows", "width": 192, "layers": 4},
        TrainConfig(epochs=12, optimizer=at(0.005), flip=True, shift=2),
    ),
    "cifar10-patches": Preset(
        "cifar10",
        "64 patches of 4×4 pixels, walked row by row and column by column in turn",
        {"view": "patches", "patch": (4, 4), "width": 128, "layers": 6, "alternate": True},
        TrainConfig(epochs=12, optimizer=at(0.01), flip=True, shift=2),
    ),
    "cifar10-fast": Preset(
        "cifar10",
        "maps that stay maps, memory that sweeps them in four directions",
        {"widths": (64, 256, 256), "sweeping": (2, 4, 6)},
        FAST_RECIPE,
        kind="image-stg",
    ),
    "cifar10-97": Preset(
        "cifar10",
        "for one GPU, wide, deep and long: 14 PFLOP, so about 25 minutes at 10 TFLOP/s; not run yet",
        {"widths": (128, 512, 512), "depth": 3, "sweeping": (2, 3, 5, 6, 8, 9)},
        replace(FAST_RECIPE, epochs=60, group_size=500, cutout=12),
        kind="image-stg",
    ),
    "rows": Preset(
        "digits",
        "8 rows of 8 pixels; for data of your own as many as their pictures have, and not tuned to any",
        {"view": "rows", "width": 128, "layers": 3},
        TrainConfig(epochs=30, batch_size=32, group_size=16, optimizer=at(0.01), shift=1),
    ),
    "digits-pixels": Preset(
        "digits",
        "64 pixels, one a step, and the head sees the last step only; under two minutes",
        ONE_WAY | {"view": "pixels", "width": 64, "length": 640.0},
        TrainConfig(epochs=40, batch_size=32, group_size=16, optimizer=at(0.01), shift=1, shift_padding="zero"),
    ),
    "fashion-pixels": Preset(
        "fashion-mnist",
        "784 pixels, one a step, and the head sees the last step only; hours",
        ONE_WAY | {"view": "pixels", "width": 128, "layers": 3},
        TrainConfig(epochs=15, optimizer=at(0.005)),
    ),
    "fashion-permuted": Preset(
        "fashion-mnist",
        "784 permuted pixels, one a step, in an order drawn at random; hours",
        ONE_WAY | {"view": "permuted", "width": 128, "layers": 3},
        TrainConfig(epochs=15, optimizer=at(0.005)),
    ),
    "cifar10-pixels": Preset(
        "cifar10",
        "1024 pixels, one a step, and the head sees the last step only; a day",
        ONE_WAY | {"view": "pixels", "width": 192, "layers": 4},
        TrainConfig(epochs=12, optimizer=at(0.005), flip=True, shift=2),
    ),
    "cifar10-padded": Preset(
        "cifar10",
        "1000 rows, 32 of a picture and then 968 of noise, and the head sees the last step only; a day",
        ONE_WAY | {"view": "rows", "noise": 968, "width": 128, "layers": 3},
        TrainConfig(epochs=12, optimizer=at(0.005), flip=True, shift=2),
    ),
    "adding-200": adding(200, epochs=40),
    "adding-600": adding(600, epochs=80),
    "adding-2000": adding(2000, epochs=80),
    "adding-5000": adding(5000, epochs=80),
    "copy-100": copying(100, epochs=100),
    "copy-1000": copying(1000, epochs=100),
}

PRESETS |= {
    f"{name}-{kind}": beside(PRESETS[name], kind, f"{PRESETS[name].about}; {cells} in place of the STM", width=width)
    for name, kind, cells, width in (
        ("digits", "lstm", "LSTMs", 72),
        ("digits", "gru", "GRUs", 84),
        ("digits", "rnn", "plain recurrent cells", 146),
        ("cifar10-rows", "lstm", "LSTMs", 152),
        ("cifar10-rows", "gru", "GRUs", 176),
        ("cifar10-patches", "lstm", "LSTMs", 102),
        ("cifar10-patches", "gru", "GRUs", 118),
    )
}
PRESETS |= {
    f"{name}-cnn": Preset(
        PRESETS[image].data,
        "the CNN beside the image STG: its windows and its recipe, with an activation for its gates",
        {field: value for field, value in PRESETS[image].model.items() if field != "sweeping"},
        PRESETS[image].config,
        kind="cnn",
    )
    for name, image in (("digits", "digits-image"), ("cifar10", "cifar10-fast"))
}
"""What the STG is measured against, with its recipe; the learning rates are the STG's, for a comparison to search."""

DEFAULT_PRESET = {"digits": "digits", "fashion-mnist": "fashion-rows", "cifar10": "cifar10-patches"}
"""The preset of a data set where only the data set is named."""
