"use strict";
/*
 * From what is drawn to what the network gets: the paper, and the picture that `stg-np predict` would make of it
 * (stg_np/data/pictures.py): the ink is cut out, so that it fills the frame, and made small.
 */
const PAPER = 128; // pixels a side
const PEN = 6.5; // radius in pixels
const WHITE = 255; // ink is light, paper is 0, as in the training pictures
const LEAST_INK = 0.3; // of the lightest pixel

function emptyPaper() {
  return new Uint8Array(PAPER * PAPER);
}

/** Draw a line of the pen's width from one point to another, in place; points are [x, y] in pixels. */
function drawLine(paper, [x0, y0], [x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length2 = dx * dx + dy * dy;
  for (let y = 0; y < PAPER; y++) {
    for (let x = 0; x < PAPER; x++) {
      const [px, py] = [x + 0.5 - x0, y + 0.5 - y0];
      const along = length2 > 0 ? Math.min(1, Math.max(0, (px * dx + py * dy) / length2)) : 0;
      const distance = Math.hypot(px - along * dx, py - along * dy);
      const ink = Math.round(WHITE * Math.min(1, Math.max(0, PEN + 0.5 - distance)));
      if (ink > paper[y * PAPER + x]) paper[y * PAPER + x] = ink;
    }
  }
}

/** Where the ink is, {left, top, right, bottom}; null where there is none. */
function inkBox(paper) {
  const lightest = paper.reduce((most, value) => Math.max(most, value), 0);
  if (lightest === 0) return null;
  const box = { left: PAPER, top: PAPER, right: 0, bottom: 0 };
  paper.forEach((value, k) => {
    if (value / lightest < LEAST_INK) return;
    const [x, y] = [k % PAPER, Math.floor(k / PAPER)];
    box.left = Math.min(box.left, x);
    box.top = Math.min(box.top, y);
    box.right = Math.max(box.right, x + 1);
    box.bottom = Math.max(box.bottom, y + 1);
  });
  return box;
}

/** The ink in the middle of a square frame that it fills in width or in height: rows of pixels. */
function framed(paper, { left, top, right, bottom }) {
  const size = Math.max(right - left, bottom - top);
  const [dx, dy] = [Math.floor((size - left - right) / 2), Math.floor((size - top - bottom) / 2)];
  const inside = (k) => k >= 0 && k < PAPER;
  return Array.from({ length: size }, (_, y) =>
    Array.from({ length: size }, (_, x) =>
      inside(x - dx) && inside(y - dy) ? paper[(y - dy) * PAPER + x - dx] : 0,
    ),
  );
}

/** Keys' cubic with a = −½. */
function cubic(x) {
  const d = Math.abs(x);
  if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * -0.5 : 0;
}

/** A line of pixels made smaller, with Pillow's bicubic weights in whole numbers, so that the result is Pillow's. */
function resizedLine(line, size) {
  const scale = line.length / size;
  const stretch = Math.max(scale, 1);
  return Array.from({ length: size }, (_, k) => {
    const centre = (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - 2 * stretch + 0.5));
    const last = Math.min(line.length, Math.trunc(centre + 2 * stretch + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) weights.push(cubic((x - centre + 0.5) / stretch));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const ONE = 2 ** 22;
    const sum = weights.reduce((sum, weight, x) => {
      const whole = Math.trunc((weight / total) * ONE + (weight < 0 ? -0.5 : 0.5));
      return sum + whole * line[first + x];
    }, ONE / 2);
    return Math.min(WHITE, Math.max(0, Math.floor(sum / ONE)));
  });
}

function transposed(rows) {
  return rows[0].map((_, x) => rows.map((row) => row[x]));
}

/** Rounded; a half to the even number, as NumPy does. */
function rint(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** What the network gets of a drawing: side × side values 0 … value_range, row by row. */
function seeDrawing(paper, { side, value_range }) {
  const box = inkBox(paper);
  if (box === null) return new Array(side * side).fill(0);
  const narrow = framed(paper, box).map((line) => resizedLine(line, side));
  const small = transposed(transposed(narrow).map((line) => resizedLine(line, side))).flat();
  const lightest = Math.max(1, ...small);
  return small.map((value) => rint(Math.min(WHITE, value * (WHITE / lightest)) * (value_range / WHITE)));
}
