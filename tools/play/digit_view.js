"use strict";
/* The second part of the page: a drawing, the network's answer and its gates. */
{
  const NETWORK = unpack(JSON.parse(byId("network").textContent));
  const EXAMPLES = JSON.parse(byId("test-pictures").textContent);
  const { side, value_range: WHITEST, width, layers, grid, directions } = NETWORK;
  const MAPS = ["i", "u", "o", "m"];

  const paper = byId("paper");
  let ink = emptyPaper();
  let pixels = new Array(side * side).fill(0);
  let truth = null; // what a test picture shows
  let focused = 0; // the pixel that the keys are at

  // --- the paper ---------------------------------------------------------------------------------------------

  /** Show the ink in the colour of the page's letters. */
  function showPaper() {
    const context = paper.getContext("2d");
    const [red, green, blue] = getComputedStyle(paper).color.match(/\d+/g).map(Number);
    const image = context.createImageData(PAPER, PAPER);
    ink.forEach((value, k) => image.data.set([red, green, blue, value], 4 * k));
    context.putImageData(image, 0, 0);
  }

  function listenToPen() {
    let last = null;
    const place = (event) => {
      const box = paper.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * PAPER, ((event.clientY - box.top) / box.height) * PAPER];
    };
    const lineTo = (point) => {
      drawLine(ink, last ?? point, point);
      last = point;
      showPaper();
      take(seeDrawing(ink, NETWORK));
    };
    paper.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      paper.setPointerCapture(event.pointerId);
      lineTo(place(event));
      event.preventDefault();
    });
    paper.addEventListener("pointermove", (event) => {
      if (last !== null) lineTo(place(event));
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      paper.addEventListener(end, () => (last = null));
    }
  }

  function wipePaper() {
    ink = emptyPaper();
    showPaper();
  }

  // --- the grid of pixels ------------------------------------------------------------------------------------

  function buildPixels() {
    for (let y = 0; y < side; y++) {
      const row = make("div", { role: "row" });
      for (let x = 0; x < side; x++) row.append(make("div", { role: "gridcell", tabindex: -1 }));
      byId("pixels").append(row);
    }
    pixelCells().forEach((cell, k) => {
      cell.addEventListener("keydown", (event) => pressed(event, k));
      cell.addEventListener("focus", () => moveTo(k));
      cell.addEventListener("click", () => setPixel(k, pixels[k] > 0 ? 0 : WHITEST));
    });
  }

  function pixelCells() {
    return [...byId("pixels").querySelectorAll("[role=gridcell]")];
  }

  function moveTo(k) {
    pixelCells()[focused].tabIndex = -1;
    focused = k;
    pixelCells()[k].tabIndex = 0;
  }

  function pressed(event, k) {
    const [x, y] = [k % side, Math.floor(k / side)];
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-x, 0], End: [side - 1 - x, 0] };
    const shades = { " ": pixels[k] > 0 ? 0 : WHITEST, "+": pixels[k] + 4, "=": pixels[k] + 4, "-": pixels[k] - 4 };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      const within = (place) => Math.max(0, Math.min(side - 1, place));
      pixelCells()[within(y + dy) * side + within(x + dx)].focus();
    } else if (event.key in shades) {
      setPixel(k, Math.max(0, Math.min(WHITEST, shades[event.key])));
    } else return;
    event.preventDefault();
  }

  /** A pixel set by hand: the picture is taken as it is from now on, and the drawing it came from is gone. */
  function setPixel(k, value) {
    const changed = [...pixels];
    changed[k] = value;
    wipePaper();
    take(changed);
  }

  function showPixels() {
    pixelCells().forEach((cell, k) => {
      cell.style.setProperty("--size", pixels[k] / WHITEST);
      const place = { row: Math.floor(k / side) + 1, column: (k % side) + 1 };
      cell.setAttribute("aria-label", say("pixel", { ...place, value: pixels[k], most: WHITEST }));
    });
  }

  // --- the answer --------------------------------------------------------------------------------------------

  function buildAnswer(classes) {
    for (let digit = 0; digit < classes; digit++) {
      const bar = make("span", { class: "bar", "aria-hidden": "true" });
      byId("answer").append(make("li", {}, make("b", {}, `${digit}`), bar, make("span", { class: "number" })));
    }
  }

  function showAnswer(probabilities) {
    const blank = pixels.every((value) => value === 0);
    const digit = probabilities.indexOf(Math.max(...probabilities));
    probabilities.forEach((probability, k) => {
      const line = byId("answer").children[k];
      line.classList.toggle("first", k === digit && !blank);
      line.children[1].style.setProperty("--size", blank ? 0 : probability);
      line.children[2].textContent = blank ? "" : `${(100 * probability).toFixed(1)} %`;
    });
    const values = { digit, truth, percent: `${(100 * probabilities[digit]).toFixed(0)} %` };
    byId("verdict").textContent = blank ? say("blank") : say(truth === null || truth === digit ? "verdict" : "wrong", values);
  }

  // --- the gates ---------------------------------------------------------------------------------------------

  function buildGates() {
    for (let layer = 0; layer < layers; layer++) {
      const row = make("tr", {}, make("th", { scope: "row" }, say("layer", { n: layer + 1 })));
      for (const name of MAPS) {
        const map = make("div", { class: `map ${name}`, role: "img" });
        map.style.setProperty("--sides", grid);
        map.append(...Array.from({ length: grid * grid }, () => make("span")));
        row.append(make("td", {}, map, make("small", { "aria-hidden": "true" })));
      }
      document.querySelector("#gates tbody").append(row);
    }
  }

  /** One number a patch: the mean over the cells, or one cell's; of memories, the size. */
  function mapOf(rows, name) {
    const which = byId("which").valueAsNumber;
    const chosen = (row) => Array.from(which === 0 ? row : [row[which - 1]], (value) => (name === "m" ? Math.abs(value) : value));
    return rows.map((row) => chosen(row).reduce((sum, value, _, all) => sum + value / all.length, 0));
  }

  function showGates(seen) {
    const which = byId("which").valueAsNumber;
    const direction = directions[Math.floor((which - 1) / (width / directions.length))];
    byId("which-name").textContent =
      which === 0 ? say("all", { n: width }) : say("cell", { n: which, direction: say(direction ?? directions[0]) });
    byId("which").setAttribute("aria-valuetext", byId("which-name").textContent);
    seen.forEach((rows, layer) => {
      MAPS.forEach((name, column) => {
        const values = mapOf(rows[name], name);
        const [least, most] = [Math.min(...values), Math.max(...values)];
        const [map, range] = document.querySelector("#gates tbody").rows[layer].cells[column + 1].children;
        values.forEach((value, k) => {
          map.children[k].style.setProperty("--size", name === "m" ? value / Math.max(most, 1e-9) : value);
        });
        range.textContent = `${written(least)} … ${written(most)}`;
        const numbers = { name, n: layer + 1, least: written(least), most: written(most), values: values.map((value) => written(value)).join(", ") };
        map.setAttribute("aria-label", say("map", numbers));
        map.title = `${name}: ${written(least)} … ${written(most)}`;
      });
    });
  }

  // --- all of it ---------------------------------------------------------------------------------------------

  let asked = false;

  /** A new picture: shown with the next frame, once, however many come before it. */
  function take(picture, label = null) {
    pixels = picture;
    truth = label;
    if (asked) return;
    asked = true;
    requestAnimationFrame(show);
  }

  function show() {
    asked = false;
    const { logits, seen } = networkForward(pixels, NETWORK);
    showPixels();
    showAnswer(softmax(logits));
    showGates(seen);
  }

  function buildExamples() {
    for (const { pixels: picture, digit, hard } of EXAMPLES) {
      const image = make("span", { class: "thumbnail", "aria-hidden": "true" });
      picture.forEach((value) => {
        const dot = make("span");
        dot.style.setProperty("--size", value / WHITEST);
        image.append(dot);
      });
      const button = make("button", { type: "button", "aria-label": say("example", { digit }) }, image);
      button.addEventListener("click", () => {
        wipePaper();
        take([...picture], digit);
      });
      byId(hard ? "hard" : "examples").append(button);
    }
  }

  buildPixels();
  buildAnswer(NETWORK.params["head.b"].length);
  buildGates();
  buildExamples();
  moveTo(0);
  listenToPen();
  byId("which").max = width;
  byId("which").addEventListener("input", show);
  byId("clear").addEventListener("click", () => {
    wipePaper();
    take(new Array(side * side).fill(0));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showPaper);
  showPaper();
  [pixels, truth] = [EXAMPLES[3].pixels, EXAMPLES[3].digit];
  show();
}
