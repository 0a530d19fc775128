"""The models: each is a frozen dataclass (its configuration) with ``init``, ``forward`` and ``backward``."""
