"use strict";
/*
 * The short-term memory layer for one sequence: stg_np/stm.py in JavaScript, line by line.
 *
 *   a = x W + b,   a = [a_i | a_u | a_o | a_z]
 *   i, u, o = σ(a_i), σ(a_u), σ(a_o)      z = tanh(a_z)      v = i z
 *   m = (1 − u) m + u v                    y = o m
 *
 * T steps, D inputs, H memory cells. Sequences are arrays of T rows; W holds D × 4H numbers row by row, b holds 4H.
 */

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/** T rows of n zeros. */
function zeroRows(T, n) {
  return Array.from({ length: T }, () => new Float64Array(n));
}

/** x W + b: T × D -> T × 4H. */
function preactivations(x, W, b) {
  return Array.from(x, (row) => {
    const a = Float64Array.from(b);
    row.forEach((value, d) => {
      for (let k = 0; k < a.length; k++) a[k] += value * W[d * a.length + k];
    });
    return a;
  });
}

/** The layer, from x (T × D) and the memory m_0 (H) before the first step: y, the last memory, and what was computed. */
function stmForward(x, m_0, { W, b }) {
  const [T, H] = [x.length, m_0.length];
  const a = preactivations(x, W, b);
  const [i, u, o, z, v, memories, y] = Array.from({ length: 7 }, () => zeroRows(T, H));
  let before = m_0;
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      i[t][h] = sigmoid(a[t][h]);
      u[t][h] = sigmoid(a[t][H + h]);
      o[t][h] = sigmoid(a[t][2 * H + h]);
      z[t][h] = Math.tanh(a[t][3 * H + h]);
      v[t][h] = i[t][h] * z[t][h];
      memories[t][h] = before[h] + u[t][h] * (v[t][h] - before[h]);
      y[t][h] = o[t][h] * memories[t][h];
    }
    before = memories[t];
  }
  return { y, m_T: before, cache: { x, a, i, u, o, z, v, m_0, memories } };
}

/**
 * The gradients of stmForward, from dy (T × H) and what the user of the last memory sends, dm_T (H).
 *
 * dm[t] is what reaches the memory of step t: from its own output, and from the step after it.
 */
function stmBackward(dy, dm_T, cache, { W }) {
  const { x, i, u, o, z, v, m_0, memories } = cache;
  const [T, D, H] = [x.length, x[0].length, m_0.length];
  const [di, du, do_, dz, dm] = Array.from({ length: 5 }, () => zeroRows(T, H));
  const da = zeroRows(T, 4 * H);
  let fromAfter = Float64Array.from(dm_T);
  for (let t = T - 1; t >= 0; t--) {
    const before = t > 0 ? memories[t - 1] : m_0;
    for (let h = 0; h < H; h++) {
      do_[t][h] = dy[t][h] * memories[t][h]; // from y = o m
      dm[t][h] = dy[t][h] * o[t][h] + fromAfter[h]; // from y = o m, and from the step after
      du[t][h] = dm[t][h] * (v[t][h] - before[h]); // from m + u (v − m)
      const dv = dm[t][h] * u[t][h]; // from m + u (v − m)
      fromAfter[h] = dm[t][h] * (1 - u[t][h]); // from m + u (v − m)
      di[t][h] = dv * z[t][h]; // from v = i z
      dz[t][h] = dv * i[t][h]; // from v = i z
      da[t][h] = di[t][h] * i[t][h] * (1 - i[t][h]); // from σ(a_i)
      da[t][H + h] = du[t][h] * u[t][h] * (1 - u[t][h]); // from σ(a_u)
      da[t][2 * H + h] = do_[t][h] * o[t][h] * (1 - o[t][h]); // from σ(a_o)
      da[t][3 * H + h] = dz[t][h] * (1 - z[t][h] * z[t][h]); // from tanh(a_z)
    }
  }
  const [dx, dW, db] = [zeroRows(T, D), new Float64Array(W.length), new Float64Array(4 * H)];
  da.forEach((row, t) => {
    row.forEach((value, k) => {
      db[k] += value; // from x W + b
      for (let d = 0; d < D; d++) {
        dW[d * 4 * H + k] += x[t][d] * value; // from x W
        dx[t][d] += value * W[d * 4 * H + k]; // from x W
      }
    });
  });
  return { dx, dm_0: fromAfter, dW, db, dm, di, du, do: do_, dz };
}
