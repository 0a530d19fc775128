"use strict";
/*
 * What the page starts from: eight inputs x, which outputs the loss reads, and the weight and the bias of
 * the input gate i, the update gate u, the output gate o and the candidate z.
 */
const PRESETS = {
  keep: {
    x: [1, 0, 0, 0, 0, 0, 0, 0],
    read: [0, 0, 0, 0, 0, 0, 0, 1],
    w: { i: 0, u: 6, o: 0, z: 2 },
    b: { i: 4, u: -4, o: 4, z: 0 },
  },
  forget: {
    x: [1, 0, 0, 0, 0, 0, 0, 0],
    read: [0, 0, 0, 0, 0, 0, 0, 1],
    w: { i: 0, u: 2, o: 0, z: 2 },
    b: { i: 4, u: 0, o: 4, z: 0 },
  },
  noise: {
    x: [2, 0.4, -0.6, 0.5, -0.3, 0.6, -0.5, 0.3],
    read: [0, 0, 0, 0, 0, 0, 0, 1],
    w: { i: 0, u: 4, o: 0, z: 1 },
    b: { i: 4, u: -5, o: 4, z: 0 },
  },
  hide: {
    x: [1, 0, 0, 0, 0, 0, 0, -2],
    read: [1, 1, 1, 1, 1, 1, 1, 1],
    w: { i: 0, u: 6, o: -4, z: 2 },
    b: { i: 4, u: -4, o: -5, z: 0 },
  },
};
