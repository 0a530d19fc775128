"use strict";
/*
 * play.html?selftest, or the page in a frame of the name selftest, uses itself as a hand would, before it has finished
 * loading, and writes what it saw into <pre id="report">: the tests read it out of a browser without a window.
 */
if (location.search === "?selftest" || window.name === "selftest") {
  const checks = {};
  const errors = [];
  addEventListener("error", (event) => errors.push(event.message));

  window.requestAnimationFrame = (show) => show(); // at once
  const valueOf = (text) => Number(text.replaceAll("−", "-"));
  const numbers = (row) => [...document.querySelectorAll(`[data-row=${row}] .number`)].map((place) => place.textContent);
  const computed = (row) => numbers(row).filter((text) => text !== "·").length;
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));

  function slide(input, value) {
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function point(kind, x, y) {
    const box = byId("paper").getBoundingClientRect();
    const place = { clientX: box.left + x * box.width, clientY: box.top + y * box.height };
    byId("paper").dispatchEvent(new PointerEvent(kind, { ...place, button: 0, pointerId: 1, bubbles: true, cancelable: true }));
  }

  function checkCell() {
    checks["all steps are shown at first"] = computed("m") === 8 && computed("dm") === 8;
    byId("to-start").click();
    checks["nothing at the start"] = computed("m") === 0 && computed("dm") === 0;
    for (let k = 0; k < 3; k++) byId("step-on").click();
    checks["three steps forward"] = computed("m") === 3 && computed("dm") === 0;
    slide(byId("position"), 10);
    checks["two steps backward"] = computed("m") === 8 && computed("dm") === 2;
    byId("to-end").click();
    const kept = numbers("m")[7];
    slide(document.querySelector("[data-kind=b][data-gate=u]"), 2);
    checks["a slider changes memory and gradient"] = numbers("m")[7] !== kept && numbers("dm")[0].includes("e−");
    slide(document.querySelector("[data-row=x] input"), -1);
    checks["an input changes the memory"] = numbers("m")[0].startsWith("−");
    document.querySelector("[data-preset=hide]").click();
    checks["hidden until the last step"] = numbers("y").slice(0, 7).every((text) => valueOf(text) < 0.05) && valueOf(numbers("y")[7]) > 0.5;
    document.querySelector("[data-preset=keep]").click();
    checks["a task is taken up again"] = numbers("m")[7] === kept;
  }

  function checkDigit() {
    checks["a test picture is answered at first"] = byId("verdict").textContent.includes("3");
    byId("clear").click();
    checks["an empty paper is no digit"] = byId("verdict").textContent === say("blank");
    document.querySelector("#pixels [tabindex='0']").focus();
    for (const key of ["ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", " ", "ArrowDown", " ", "-", "ArrowUp", " "]) press(key);
    const inked = [...document.querySelectorAll("#pixels [role=gridcell]")].map((cell) => cell.getAttribute("aria-label"));
    checks["keys ink, shade and wipe"] =
      inked.filter((label) => !label.includes(": 0 ")).join() === say("pixel", { row: 3, column: 4, value: 12, most: 16 });
    byId("paper").setPointerCapture = () => {}; // there is no real pointer to capture
    point("pointerdown", 0.5, 0.1);
    for (const y of [0.3, 0.5, 0.7, 0.9]) point("pointermove", 0.5, y);
    point("pointerup", 0.5, 0.9);
    checks["a stroke is a 1"] = byId("verdict").textContent === byId("verdict").textContent.replace(/says \d/, "says 1");
    const before = [...document.querySelectorAll("#gates small")].map((range) => range.textContent);
    slide(byId("which"), 60);
    checks["another cell has other gates"] = [...document.querySelectorAll("#gates tbody small")].every((range, k) => range.textContent !== before[k + 4]);
    document.querySelector("#hard button").click();
    checks["a wrong answer is called wrong"] = byId("verdict").textContent.includes("but");
  }

  function unlabelled() {
    const controls = [...document.querySelectorAll("button, input, [role=img], [role=grid], [role=gridcell]")];
    const named = (control) =>
      control.ariaLabel || control.getAttribute("aria-labelledby") || control.labels?.length || (control.matches("button") && control.textContent.trim());
    return controls.filter((control) => !named(control)).map((control) => control.outerHTML);
  }

  try {
    checkCell();
    checkDigit();
  } catch (error) {
    errors.push(String(error));
  }
  const network = unpack(JSON.parse(byId("network").textContent));
  const report = {
    checks,
    errors,
    unlabelled: unlabelled(),
    widths: { window: innerWidth, page: document.documentElement.scrollWidth },
    logits: JSON.parse(byId("test-pictures").textContent).map(({ pixels }) => networkForward(pixels, network).logits),
  };
  document.body.append(make("pre", { id: "report" }, JSON.stringify(report)));
}
