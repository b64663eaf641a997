// Elements and their text. Nothing on the page is written as markup, so no name can become some.

export const $ = (id) => document.getElementById(id);

/** `attributes` as in markup; `text` is the element's text, and null leaves an attribute out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export const number = new Intl.NumberFormat("en");

export function count(many, noun) {
  return `${number.format(many)} ${noun}${many === 1 ? "" : "s"}`;
}

/** A whole number of bytes as people read it, such as "3.4 MB". */
export function bytes(size) {
  if (size < 1e3) return `${size} bytes`;
  const [unit, by] = size < 1e6 ? ["kB", 1e3] : size < 1e9 ? ["MB", 1e6] : ["GB", 1e9];
  return `${number.format(Math.round((size / by) * 10) / 10)} ${unit}`;
}

/** Puts text on the clipboard, and says so on the button for a moment. */
export async function copy(text, button) {
  const label = button.textContent;
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = "Press Ctrl+C"; // pages without TLS may not write to the clipboard: select it instead
    const selection = getSelection();
    selection.selectAllChildren($(button.dataset.copies));
  }
  button.textContent = said;
  setTimeout(() => (button.textContent = label), 2000);
}
