"use strict";
/* The first part of the page: one cell, whose forward and backward are stepped. */
{
  const GATES = ["i", "u", "o", "z"];
  const T = PRESETS.keep.x.length;
  const END = 2 * T; // positions: 0, then T forward steps, then T backward steps
  const RANGES = { w: 8, b: 8 };
  const PAUSE = 600; // milliseconds between steps

  const state = { ...structuredClone(PRESETS.keep), position: END };
  const cells = {}; // of the table, by row
  let timer = null;

  /** All that the cell computes from the state: forward and backward of the package's layer, with D = H = 1. */
  function computed() {
    const params = { W: GATES.map((gate) => state.w[gate]), b: GATES.map((gate) => state.b[gate]) };
    const { y, cache } = stmForward(state.x.map((value) => [value]), [0], params);
    const grads = stmBackward(state.read.map((ticked) => [ticked]), [0], cache, params);
    return { y, cache, grads };
  }

  function forwardSteps() {
    return Math.min(state.position, T);
  }

  /** The first step (from 0) whose backward is done; T if there is none. */
  function firstBackward() {
    return END - Math.max(state.position, T);
  }

  /** The step (from 0) that the position is at; −1 at the start. */
  function currentStep() {
    return state.position <= T ? state.position - 1 : firstBackward();
  }

  // --- the table ---------------------------------------------------------------------------------------------

  function buildTable() {
    const head = document.querySelector("#timeline thead tr");
    cells.t = Array.from({ length: T }, (_, t) => make("th", { scope: "col" }, `${t + 1}`));
    head.append(...cells.t);
    for (const row of document.querySelectorAll("#timeline tbody tr")) {
      cells[row.dataset.row] = Array.from({ length: T }, (_, t) => make("td", {}, ...contentOf(row.dataset.row, t)));
      row.append(...cells[row.dataset.row]);
    }
  }

  function contentOf(row, t) {
    if (row === "x") {
      const input = make("input", { type: "number", step: "0.1", min: "-9", max: "9", "aria-label": say("input", { t: t + 1 }) });
      input.addEventListener("input", () => {
        state.x[t] = Number.isFinite(input.valueAsNumber) ? Math.max(-9, Math.min(9, input.valueAsNumber)) : 0;
        show();
      });
      input.addEventListener("change", () => (input.value = state.x[t]));
      return [input];
    }
    if (row === "read") {
      const input = make("input", { type: "checkbox", "aria-label": say("in_loss", { t: t + 1 }) });
      input.addEventListener("change", () => {
        state.read[t] = Number(input.checked);
        show();
      });
      return [input];
    }
    return [make("span", { class: "bar", "aria-hidden": "true" }), make("span", { class: "number" })];
  }

  /** Put a value into a cell of the table as a bar and a number; null: it is not computed yet. */
  function put(row, t, value, most = 1) {
    const [bar, number] = cells[row][t].children;
    bar.style.setProperty("--size", value === null ? 0 : Math.abs(value) / most);
    bar.classList.toggle("below", value !== null && value < 0);
    number.textContent = value === null ? "·" : written(value);
  }

  function showTable({ y, cache, grads }) {
    const most = Math.max(1, ...grads.dm.map((row) => Math.abs(row[0])));
    for (let t = 0; t < T; t++) {
      const [forward, backward] = [t < forwardSteps(), t >= firstBackward()];
      for (const gate of ["i", "u", "o"]) put(gate, t, forward ? cache[gate][t][0] : null);
      put("m", t, forward ? cache.memories[t][0] : null);
      put("y", t, forward ? y[t][0] : null);
      put("dm", t, backward ? grads.dm[t][0] : null, most);
      for (const row of Object.values(cells)) row[t].classList.toggle("now", t === currentStep());
    }
  }

  // --- the sums of one step ----------------------------------------------------------------------------------

  function numbersOf(t, { y, cache, grads }) {
    const at = (rows) => rows[t][0];
    const before = t > 0 ? cache.memories[t - 1][0] : 0;
    const numbers = { x: state.x[t], before, keep: 1 - at(cache.u), v: at(cache.v), m: at(cache.memories), y: at(y) };
    GATES.forEach((gate, k) => {
      numbers[`w_${gate}`] = state.w[gate];
      numbers[`b_${gate}`] = state.b[gate];
      numbers[`a_${gate}`] = cache.a[t][k];
      numbers[gate] = at(cache[gate]);
      numbers[`d${gate}`] = at(grads[`d${gate}`]);
    });
    const dm = at(grads.dm);
    const after = t + 1 < T ? (1 - cache.u[t + 1][0]) * grads.dm[t + 1][0] : 0;
    return { ...numbers, dy: state.read[t], dm, after, dv: dm * at(cache.u), sent: numbers.keep * dm };
  }

  function showSums(all) {
    const t = currentStep();
    const phase = t < 0 ? "none" : state.position <= T ? "forward" : "backward";
    byId("sums-title").textContent = t < 0 ? say("nothing") : say(`sums_${phase}`, { t: t + 1, T });
    for (const list of document.querySelectorAll("#sums ol")) list.hidden = list.dataset.phase !== phase;
    if (t < 0) return;
    const numbers = numbersOf(t, all);
    for (const place of document.querySelectorAll("#sums [data-n]")) {
      const value = numbers[place.dataset.n];
      const text = Number.isInteger(value) ? written(value, 0) : written(value, 3);
      const bracket = value < 0 && /[·+−] $/.test(place.previousSibling?.textContent ?? "");
      place.textContent = bracket ? `(${text})` : text;
    }
  }

  // --- sliders -----------------------------------------------------------------------------------------------

  function buildSliders() {
    const table = document.querySelector(".slider-table");
    for (const gate of GATES) {
      for (const kind of ["w", "b"]) {
        const most = gate === "z" ? 3 : RANGES[kind];
        const label = say(kind === "w" ? "weight" : "bias", { gate });
        const slider = make("input", { type: "range", min: -most, max: most, step: 0.1, "aria-label": label });
        slider.dataset.kind = kind;
        slider.dataset.gate = gate;
        slider.addEventListener("input", () => {
          state[kind][gate] = slider.valueAsNumber;
          show();
        });
        const name = make("i", { class: gate, "aria-hidden": "true" }, kind, make("sub", {}, gate));
        const gradient = make("span", { class: "gradient" });
        table.append(make("label", {}, name, slider, make("b", {}), gradient));
      }
    }
  }

  function showSliders({ grads }) {
    for (const slider of document.querySelectorAll(".slider-table input")) {
      const { kind, gate } = slider.dataset;
      slider.value = state[kind][gate];
      const [value, gradient] = [slider.nextElementSibling, slider.nextElementSibling.nextElementSibling];
      value.textContent = written(state[kind][gate], 1);
      const all = kind === "w" ? grads.dW : grads.db;
      gradient.textContent = `d${kind} ${state.position === END ? written(all[GATES.indexOf(gate)], 3) : "·"}`;
    }
    const tau = 1 / sigmoid(state.b.u);
    byId("tau").textContent = written(tau, tau < 10 ? 1 : 0);
  }

  // --- all of it ---------------------------------------------------------------------------------------------

  function show() {
    const all = computed();
    showTable(all);
    showSums(all);
    showSliders(all);
    const t = currentStep();
    byId("position").value = state.position;
    byId("phase").textContent = t < 0 ? say("start") : say(state.position <= T ? "forward" : "backward", { t: t + 1 });
    byId("position").setAttribute("aria-valuetext", byId("phase").textContent);
  }

  function start(name) {
    Object.assign(state, structuredClone(PRESETS[name]));
    for (const button of document.querySelectorAll("[data-preset]")) {
      button.setAttribute("aria-pressed", button.dataset.preset === name);
    }
    for (const text of document.querySelectorAll("[data-about]")) text.hidden = text.dataset.about !== name;
    for (let t = 0; t < T; t++) {
      cells.x[t].firstChild.value = state.x[t];
      cells.read[t].firstChild.checked = Boolean(state.read[t]);
    }
    show();
  }

  function go(position) {
    state.position = Math.max(0, Math.min(END, position));
    show();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    byId("play").textContent = say("play");
  }

  function play() {
    if (timer !== null) return stop();
    if (state.position === END) go(0);
    byId("play").textContent = say("pause");
    timer = setInterval(() => {
      go(state.position + 1);
      if (state.position === END) stop();
    }, PAUSE);
  }

  /** What a click does: a hand on the steps stops the play. */
  function onClick(id, action) {
    byId(id).addEventListener("click", () => {
      stop();
      action();
    });
  }

  buildTable();
  buildSliders();
  byId("position").max = END;
  for (const button of document.querySelectorAll("[data-preset]")) {
    button.addEventListener("click", () => start(button.dataset.preset));
  }
  onClick("to-start", () => go(0));
  onClick("step-back", () => go(state.position - 1));
  onClick("step-on", () => go(state.position + 1));
  onClick("to-end", () => go(END));
  byId("play").addEventListener("click", play);
  byId("position").addEventListener("input", () => {
    stop();
    go(byId("position").valueAsNumber);
  });
  start("keep");
}
