"""The models: each is a frozen dataclass (its configuration) with ``layout``, ``init``, ``forward`` and ``backward``.

A new model is one file here and one line in :data:`MODELS`.
"""

from __future__ import annotations

from typing import Any

from stg_np.models.cnn import CNN
from stg_np.models.gru import GRU
from stg_np.models.image_stg import ImageSTG
from stg_np.models.lstm import LSTM
from stg_np.models.mlp import MLP
from stg_np.models.rnn import RNN
from stg_np.models.stg import STG

MODELS: dict[str, type[Any]] = {
    "stg": STG,
    "image-stg": ImageSTG,
    "mlp": MLP,
    "cnn": CNN,
    "lstm": LSTM,
    "gru": GRU,
    "rnn": RNN,
}
"""Every kind of model, by the name that configurations and checkpoints give it."""
