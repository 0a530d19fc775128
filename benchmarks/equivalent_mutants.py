"""Edits of the source that change nothing anyone could notice, and why: one line for each."""

READ_BY_NOBODY = "σ', tanh' and identity' need their outputs only (tests/test_stm.py tries one that reads its input)"
ANY_LENGTH = "any negative length is inferred"
EQUIVALENT = {
    r".*reshape\(-1, .* -> .*reshape\(-2, ": ANY_LENGTH,
    r".*: xp = get_xp\((\w+), (\w+)\) -> xp = get_xp\(\2, \1\)": "the arrays may be named in any order",
    r"ops.pool.last_pool_forward: y.*, 1\)$": "a matrix has no third axis",
    r"ops.views.patches_forward: grid = .* -> .*(\(rows, B,|, c, patch_width\))": "they stay neighbours",
    r"stm.init_stm: tau = .*max\(length, 2.0\)": "a maximum has no order",
    r"stm.gates_backward: H = ": READ_BY_NOBODY,
    r"stm.gates_backward: a.shape\[-1\] // 4 -> ": READ_BY_NOBODY,
    r"stm.gates_backward: parts = .*, gates\[g\]\) for g in range\(3\)\]$": READ_BY_NOBODY,
    r"stm.gates_backward: parts.append\(.*, gates.z\)\)$": READ_BY_NOBODY,
    r"stm.gates_backward: g \+ 1 -> ": READ_BY_NOBODY,
    r"fast.stm_backward: if params.w is not None and .* -> if params.w is not None or ": "both are None, or neither",
    r"fast.stm_backward: dgates = .* -> .*zeros\(\(3, ": "one row too many, which nobody reads",
    r"fast.chunk_backward: .*order='C'\) -> ": "the order in memory only",
    r"fast.chunk_backward: .*, out=dms\) -> ": "another array for the same numbers",
    r"fast_conv.conv2d_backward: backward = ": "both ways compute the same gradient",
    r"fast_conv.columns_backward: (for part in chunks|height \* width|k \* k ->)": "how the batch is cut",
    r"fast_conv.columns_backward: dpadded = ": "a wider border, which nobody reads",
    r"fast_conv.columns_backward: dx.*k // 3": "windows of 3 have the same margin; ops.conv is checked with 5",
    r"fast_conv.winograd_backward: .*, out=dU\) -> ": "another array for the same numbers",
    r"fast_conv.winograd_backward: dW = .*, -1\) -> .*, -2\)": ANY_LENGTH,
    r"fast_conv.(input|output)_backward: add_scaled\(.*, 4, ": "a product has no order",
    r"models.stg.STG.layer_backward: dm_T = .*dtype": "the dtype of dm_0, which nobody reads",
    r"models.stg.STG.layer_backward: dy = dropout_backward": "a product has no order",
    r"ops.activations.relu_backward: .* -> return dy \* \(x >= 0\)": "at 0 there is no derivative",
    r"ops.pool2d.max_pool2d_backward: share = ": "differs at ties only, where there is no derivative",
    r"ops.views.patches_backward: .* -> .*(\(height // patch_height, -1,|, c, patch_width\))": "they stay neighbours",
}
"""Patterns of ``module.function: line before -> line after``."""
