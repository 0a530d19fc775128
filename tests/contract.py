"""What every forward/backward pair promises besides the right gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from stg_np.backend import Array, get_xp, to_host
from stg_np.params import Params
from tests.strict_cupy import synchronisations


def leaves(tree: Any) -> Iterator[Array]:
    """All arrays in named tuples, tuples, lists, mappings and Params."""
    if isinstance(tree, Params):
        yield tree.flat
    elif isinstance(tree, Mapping):
        yield from leaves(tuple(tree.values()))
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from leaves(part)
    elif hasattr(tree, "dtype"):
        yield tree


def hold_to_contract(
    forward: Callable[..., tuple[Any, Any]], backward: Callable[[Any, Any], Any], inputs: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Run a pair once, with its own outputs as ``doutputs``; return outputs and gradients.

    Outputs, gradients and the cache are finite and of the dtype of the inputs; outputs and gradients belong to their
    library; the inputs are not written to; and the host never waits for the device.
    """
    before = [to_host(array).copy() for array in leaves(inputs)]
    with synchronisations() as waits:
        outputs, cache = forward(**inputs)
        gradients = backward(outputs, cache)
    assert waits == []
    dtype = next(array.dtype for array in leaves(inputs) if array.dtype.kind == "f")
    for array in leaves((outputs, cache, gradients)):
        assert array.dtype == dtype or array.dtype.kind != "f"
        assert np.isfinite(to_host(array)).all()
    get_xp(*leaves((inputs, outputs, gradients)))  # raises for a mix
    for array, same in zip(leaves(inputs), before):
        np.testing.assert_array_equal(to_host(array), same)
    return outputs, gradients
