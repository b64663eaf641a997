// Cosines of unit vectors: the nearest of each item, and the table of all against all.

import { element } from "./dom.js";
import { picture } from "./cards.js";

export const MOST_IN_MATRIX = 60;
const PAUSE_AFTER_MS = 30;

export function cosine(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return Math.min(1, Math.max(-1, sum));
}

/** Finds the nearest of each item, and pauses often so that the page stays quick. `isStale` tells
 * when the answer is no longer wanted. */
export async function findNearest(items, isStale) {
  const best = items.map(() => ({ score: -Infinity, item: null }));
  let began = performance.now();
  for (let i = 0; i < items.length; i++) {
    for (let j = 0; j < i; j++) {
      const score = cosine(items[i].vector, items[j].vector);
      if (score > best[i].score) best[i] = { score, item: items[j] };
      if (score > best[j].score) best[j] = { score, item: items[i] };
    }
    if (performance.now() - began > PAUSE_AFTER_MS) {
      await new Promise((resolve) => setTimeout(resolve));
      if (isStale()) return;
      began = performance.now();
    }
  }
  items.forEach((item, i) => (item.nearest = best[i].item ? best[i] : null));
}

/** Rows and columns for the first of the items. */
export function matrix(items) {
  const shown = items.slice(0, MOST_IN_MATRIX);
  const scores = shown.map((a) => shown.map((b) => cosine(a.vector, b.vector)));
  const pairs = scores.flatMap((row, i) => row.filter((_, j) => j !== i));
  const least = Math.min(...pairs);
  const span = Math.max(...pairs) - least || 1;
  const heads = shown.map((item) =>
    element("th", { scope: "col", title: item.name }, picture(item), hidden(item.name)),
  );
  const rows = shown.map((item, i) => {
    const cells = scores[i].map((score, j) => {
      const cell = element("td", { text: score.toFixed(2), title: `${item.name} and ${shown[j].name}` });
      if (i === j) cell.className = "self";
      else cell.style.setProperty("--heat", `${Math.round((100 * (score - least)) / span)}%`);
      return cell;
    });
    const name = element("span", { class: "name", text: item.name });
    return element("tr", {}, element("th", { scope: "row", title: item.name }, picture(item), name), ...cells);
  });
  const corner = element("th", { scope: "col" }, hidden("Image"));
  return {
    least,
    most: least + span,
    table: element(
      "table",
      { class: shown.length > 16 ? "dense" : null },
      element("caption", { class: "hidden", text: "Cosine similarity of each pair" }),
      element("thead", {}, element("tr", {}, corner, ...heads)),
      element("tbody", {}, ...rows),
    ),
  };
}

const hidden = (text) => element("span", { class: "hidden", text });
