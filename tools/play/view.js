"use strict";
/* What both parts of the page need to show themselves. */

const WORDS = JSON.parse(document.getElementById("words").textContent);

const byId = (id) => document.getElementById(id);

/** A sentence of the page, with the values put in. */
function say(name, values = {}) {
  return WORDS[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** A new element with attributes and children. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A number to read: two decimals and a real minus; what is small but not 0 with its power of ten. */
function written(value, decimals = 2) {
  const tiny = value !== 0 && Math.abs(value) < 0.5 * 10 ** -decimals;
  const text = tiny ? value.toExponential(0).replace("e-", "e−") : value.toFixed(decimals);
  return text.replace(/^-/, "−").replace(/^−(0(\.0+)?)$/, "$1");
}
