// The API key: asked for when the service wants one, and kept in this tab alone.

import { $ } from "./dom.js";

const NAME = "raylens-key";
let asking = null;

export const storedKey = () => sessionStorage.getItem(NAME);

function keep(key) {
  if (key) sessionStorage.setItem(NAME, key);
  else sessionStorage.removeItem(NAME);
  $("key").hidden = false;
  $("key").textContent = key ? "Change key" : "Enter key";
}

/** Asks for a key, once for all who want it. Resolves to whether there is a new one. */
export function askForKey(reason = "") {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    $("key-error").textContent = reason;
    $("key-input").value = "";
    dialog.returnValue = "";
    dialog.addEventListener(
      "close",
      () => {
        asking = null;
        const key = dialog.returnValue === "ok" ? $("key-input").value.trim() : "";
        $("key-input").value = "";
        if (key || dialog.returnValue === "forget") keep(key);
        else keep(storedKey());
        resolve(Boolean(key));
      },
      { once: true },
    );
    $("key-forget").hidden = !storedKey();
    dialog.showModal();
    $("key-input").focus();
  });
  return asking;
}

function submit(event) {
  event.preventDefault();
  const key = $("key-input").value.trim();
  if (!/^[\x21-\x7e]+$/.test(key)) $("key-error").textContent = "Paste the whole key, in one piece.";
  else $("key-dialog").close("ok");
}

$("key-form").addEventListener("submit", submit);
$("key-cancel").addEventListener("click", () => $("key-dialog").close(""));
$("key-forget").addEventListener("click", () => $("key-dialog").close("forget"));
if (storedKey()) keep(storedKey());
