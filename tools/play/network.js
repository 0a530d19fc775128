"use strict";
/*
 * The network of digits that comes with stg_np, forward only: the patches of a picture, three layers of STM walks, the
 * mean over the patches, a linear head. It is stg_np/models/stack.py for one picture; the STM itself is cell.js.
 */

/** The number that 16 bits stand for (IEEE 754 binary16). */
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The description of a network with its parameters unpacked: arrays by name, as stg_np names them. */
function unpack(network) {
  const bytes = atob(network.params);
  const params = {};
  let at = 0;
  for (const [name, shape] of network.layout) {
    const size = shape.reduce((product, side) => product * side, 1);
    params[name] = Float64Array.from({ length: size }, () => {
      at += 2;
      return fromHalf(bytes.charCodeAt(at - 2) | (bytes.charCodeAt(at - 1) << 8));
    });
  }
  return { ...network, params };
}

/** A picture of values 0 … value_range, row by row, as patches row by row, scaled as in training. */
function patchesOf(pixels, { side, patch, mean, std, value_range }) {
  const patches = [];
  for (let top = 0; top < side; top += patch) {
    for (let left = 0; left < side; left += patch) {
      const values = new Float64Array(patch * patch);
      values.forEach((_, k) => {
        const pixel = pixels[(top + Math.floor(k / patch)) * side + left + (k % patch)];
        values[k] = (pixel / value_range - mean) / std;
      });
      patches.push(values);
    }
  }
  return patches;
}

/** x / rms(x), row by row. */
function rmsNorm(rows) {
  return rows.map((row) => {
    const meanSquare = row.reduce((sum, value) => sum + value * value, 0) / row.length;
    return row.map((value) => value / Math.sqrt(meanSquare + 1e-5));
  });
}

/** The places of the patches, row by row, in the order in which a walk meets them. */
function walkOrder(grid, turned, direction) {
  const places = Array.from({ length: grid * grid }, (_, t) => (turned ? (t % grid) * grid + Math.floor(t / grid) : t));
  return direction === "left" ? places.reverse() : places;
}

/**
 * One layer: a walk in each direction, side by side, and from the second layer on the path around them.
 *
 * Returns the rows that the layer gives and, for each patch, the values of i, u, o and the memory of all cells.
 */
function layerForward(h, layer, { params, grid, width, layers, directions, alternate }) {
  const adds = layer > 0;
  const read = adds ? rmsNorm(h) : h;
  const H = width / directions.length;
  const seen = { i: zeroRows(h.length, width), u: zeroRows(h.length, width), o: zeroRows(h.length, width) };
  seen.m = zeroRows(h.length, width);
  const next = zeroRows(h.length, width);
  directions.forEach((direction, k) => {
    const order = walkOrder(grid, alternate && layer % 2 === 1, direction);
    const walk = `stm${layer + 1}.${direction}`;
    const own = { W: params[`${walk}.W`], b: params[`${walk}.b`] };
    const { y, cache } = stmForward(order.map((place) => read[place]), new Float64Array(H), own);
    order.forEach((place, t) => {
      next[place].set(y[t], k * H);
      for (const [name, rows] of Object.entries({ i: cache.i, u: cache.u, o: cache.o, m: cache.memories })) {
        seen[name][place].set(rows[t], k * H);
      }
    });
  });
  if (adds) next.forEach((row, t) => row.forEach((_, k) => (row[k] += h[t][k])));
  return { h: next, seen };
}

/** The logits of a picture, and what each layer's gates and memories were at each patch. */
function networkForward(pixels, network) {
  let h = patchesOf(pixels, network);
  const seen = [];
  for (let layer = 0; layer < network.layers; layer++) {
    const result = layerForward(h, layer, network);
    h = result.h;
    seen.push(result.seen);
  }
  h = rmsNorm(h);
  const pooled = h[0].map((_, k) => h.reduce((sum, row) => sum + row[k], 0) / h.length);
  const logits = Array.from(preactivations([pooled], network.params["head.W"], network.params["head.b"])[0]);
  return { logits, seen };
}

function softmax(logits) {
  const most = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - most));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
