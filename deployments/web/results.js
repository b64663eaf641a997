// What is shown of the answers besides the cards: the matrix, times, code and the model.

import { $, copy, count, element, number } from "./dom.js";
import { storedKey } from "./key.js";
import { serviceUrl } from "./service.js";
import { matrix, MOST_IN_MATRIX } from "./similarity.js";
import { SNIPPETS } from "./snippets.js";

const STAGES = {
  total: "In the service",
  fetch: "Fetching",
  decode: "Decoding images",
  queue: "Waiting for the model",
  model: "In the model",
  rest: "Network and browser",
};

export function showMatrix(items) {
  $("alike").hidden = items.length < 2;
  if (items.length < 2) return $("matrix").replaceChildren();
  const { table, least, most } = matrix(items);
  const first =
    items.length > MOST_IN_MATRIX
      ? ` The first ${MOST_IN_MATRIX} of ${number.format(items.length)} are shown; the nearest above are among all.`
      : "";
  $("alike-note").textContent =
    `Cosine of each pair, from ${least.toFixed(2)} to ${most.toFixed(2)}; the stronger the colour, the more alike.${first}`;
  $("matrix").replaceChildren(table);
}

/** `timing` has milliseconds by stage, summed over so many requests. */
export function showTimes({ timing, requests, cached }) {
  $("time").hidden = !requests;
  const known = Object.keys(STAGES).filter((name) => timing[name] >= 0.05);
  const longest = Math.max(...known.map((name) => timing[name]), 1);
  const of = requests === 1 ? "Of one request." : `Of ${count(requests, "request")} together.`;
  const hits = cached ? ` ${count(cached, "item")} came from the cache.` : "";
  $("time-note").textContent = `${of}${hits} Stages overlap, so they need not add up.`;
  const rows = known.map((name) => {
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", timing[name] / longest);
    const ms = timing[name];
    const text = ms < 10 ? ms.toFixed(1) : number.format(Math.round(ms));
    return element(
      "div",
      { class: name === "total" ? "whole" : null },
      element("dt", { text: STAGES[name] }),
      element("dd", {}, bar, element("span", { class: "score", text: `${text} ms` })),
    );
  });
  $("bars").replaceChildren(...rows);
}

let snippets = {};

export function showCode(items, model) {
  $("code").hidden = !items.length;
  const asked = { url: serviceUrl, model, hasKey: Boolean(storedKey()) };
  for (const [name, write] of Object.entries(SNIPPETS)) snippets[name] = write(items, asked);
  choose(document.querySelector("[role=tab][aria-selected=true]") ?? $("tab-curl"));
}

function choose(tab) {
  for (const one of document.querySelectorAll("[role=tab]")) {
    one.setAttribute("aria-selected", String(one === tab));
    one.tabIndex = one === tab ? 0 : -1;
  }
  $("snippet-panel").setAttribute("aria-labelledby", tab.id);
  $("snippet").textContent = snippets[tab.dataset.name] ?? "";
}

function walk(event) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const next = tabs[(tabs.indexOf(event.currentTarget) + by + tabs.length) % tabs.length];
  choose(next);
  next.focus();
}

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", walk);
}
$("copy").addEventListener("click", () => copy($("snippet").textContent, $("copy")));

export function showModel(model) {
  $("model").hidden = false;
  const [height, width] = [model.image_size].flat();
  $("serving").textContent = `${model.id} on ${model.device}, ${model.precision}`;
  const facts = {
    Name: model.id,
    Revision: model.revision ?? null,
    Reads: model.modalities.map((kind) => `${kind}s`).join(" and "),
    Vectors: `${number.format(model.dimensions)} dimensions`,
    "Image size": `${width ?? height} × ${height} pixels`,
    Device: [model.device, model.device_reason],
    Precision: [model.precision, model.precision_reason],
    Engine: [model.engine, model.engine_reason],
  };
  const rows = Object.entries(facts).filter(([, fact]) => fact);
  $("facts").replaceChildren(
    ...rows.map(([name, fact]) => {
      const [value, reason] = [fact].flat();
      const why = reason ? element("span", { class: "quiet", text: reason }) : null;
      return element("div", {}, element("dt", { text: name }), element("dd", {}, `${value} `, why));
    }),
  );
}
