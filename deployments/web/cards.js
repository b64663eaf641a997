// A card for each item: its picture, its nearest, or what was wrong with it.

import { element } from "./dom.js";

/** The item's picture: a local file's own, words as they are, the host of a URL. A URL is never
 * loaded from here, because no request may leave the service's origin. */
export function picture(item) {
  const box = element("span", { class: "picture" });
  if (item.preview && !item.hasNoPreview) {
    const image = element("img", { src: item.preview, alt: "", loading: "lazy", decoding: "async" });
    image.addEventListener("error", () => {
      item.hasNoPreview = true; // no browser shows HEIC everywhere, for instance
      box.replaceChildren(tile(item));
    });
    box.append(image);
  } else {
    box.append(tile(item));
  }
  return box;
}

function tile(item) {
  if (item.text !== undefined) return element("span", { class: "tile words", text: `“${item.text}”` });
  const kind = item.url ? item.host : (item.name.split(".").pop() || "file").toUpperCase();
  return element("span", { class: "tile", text: kind });
}

const STATES = { waiting: "Waiting", sending: "Embedding …", stopped: "Not sent" };

function told(item) {
  if (item.error) return element("p", { class: "wrong", text: item.error });
  if (!item.vector) return element("p", { class: "quiet", text: STATES[item.state] });
  if (!item.nearest) return element("p", { class: "quiet", text: "Nothing to compare with yet" });
  const { item: other, score } = item.nearest;
  const cut = item.truncated ? element("p", { class: "quiet", text: "Longer than the model reads" }) : null;
  const link = element(
    "a",
    { class: "nearest", href: `#item-${other.id}`, title: `${other.name}, ${score.toFixed(4)}` },
    picture(other),
    element("span", { class: "name" }, element("span", { class: "quiet", text: "Nearest " }), other.name),
    element("span", { class: "score", text: score.toFixed(2) }),
  );
  return element("div", {}, link, cut);
}

export function card(item, remove) {
  const label = `Remove ${item.name}`;
  const button = element("button", { type: "button", class: "remove", "aria-label": label, title: label, text: "×" });
  button.addEventListener("click", () => remove(item));
  const made = element(
    "li",
    { id: `item-${item.id}`, class: "card", tabindex: "-1" },
    picture(item),
    button,
    element("p", { class: "name", title: item.url ?? item.name, text: item.name }),
    told(item),
  );
  made.classList.toggle("failed", Boolean(item.error));
  return made;
}
