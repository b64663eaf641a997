"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const { x, y, names, thumbnails, folder, full } = data; // x and y from 0 to `full`
const $ = (id) => document.getElementById(id);
const canvas = document.querySelector("canvas");
const context = canvas.getContext("2d");
const card = $("card");
const CELL = 56; // pixels: in each such square, one point is drawn as its picture
const pictures = new Map();
let scale, left, top_, chosen = -1, found = null, asked = false, moved = false;

document.querySelector("h1").textContent = data.title;
$("note").textContent = data.note;

const screenX = (i) => x[i] * scale + left;
const screenY = (i) => y[i] * scale + top_;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function showAll() {
  moved = false;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  let right = 1, bottom = 1;
  for (let i = 0; i < x.length; i++) { right = Math.max(right, x[i]); bottom = Math.max(bottom, y[i]); }
  const margin = Math.min(width, height) * 0.1;
  scale = Math.min((width - 2 * margin) / right, (height - 2 * margin) / bottom);
  left = (width - right * scale) / 2;
  top_ = (height - bottom * scale) / 2;
  draw();
}

function zoom(factor, atX = canvas.clientWidth / 2, atY = canvas.clientHeight / 2) {
  const next = Math.min(Math.max(scale * factor, 50 / full), 1000);
  left = atX - (atX - left) * next / scale;
  top_ = atY - (atY - top_) * next / scale;
  scale = next;
  moved = true;
  draw();
}

function move(byX, byY) { left += byX; top_ += byY; moved = true; draw(); }

function draw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; paint(); });
}

function paint() {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const seen = [];
  for (let i = 0; i < x.length; i++) {
    const px = screenX(i), py = screenY(i);
    if (px > -40 && py > -40 && px < width + 40 && py < height + 40) seen.push(i);
  }
  const size = x.length > 5000 ? 3 : 6;
  context.fillStyle = colour("--dot");
  for (const i of seen) {
    context.globalAlpha = found && !found[i] ? 0.12 : 0.8;
    context.fillRect(screenX(i) - size / 2, screenY(i) - size / 2, size, size);
  }
  context.globalAlpha = 1;
  const taken = new Set();
  for (const i of seen) {
    if (!thumbnails[i] || (found && !found[i])) continue;
    // Squares of the map, not of the screen, so that moving it does not change the choice.
    const square = Math.floor(x[i] * scale / CELL) + "," + Math.floor(y[i] * scale / CELL);
    if (taken.has(square)) continue;
    taken.add(square);
    drawPicture(i);
  }
  if (chosen >= 0) {
    context.strokeStyle = colour("--ink");
    context.lineWidth = 2;
    context.beginPath();
    context.arc(screenX(chosen), screenY(chosen), 9, 0, 7);
    context.stroke();
  }
}

function drawPicture(i) {
  if (!pictures.has(i)) {
    if (pictures.size > 1000) pictures.clear();
    const image = new Image();
    image.onload = draw;
    image.src = thumbnails[i];
    pictures.set(i, image);
  }
  const image = pictures.get(i);
  if (!image.complete || !image.naturalWidth) return;
  const shrink = (CELL - 8) / Math.max(image.naturalWidth, image.naturalHeight);
  const width = image.naturalWidth * shrink, height = image.naturalHeight * shrink;
  context.drawImage(image, screenX(i) - width / 2, screenY(i) - height / 2, width, height);
}

function nearest(atX, atY, within) {
  let best = -1, least = within * within;
  for (let i = 0; i < x.length; i++) {
    const byX = screenX(i) - atX, byY = screenY(i) - atY, distance = byX * byX + byY * byY;
    if (distance < least && (!found || found[i])) { least = distance; best = i; }
  }
  return best;
}

function choose(i) {
  if (i === chosen && i < 0) return;
  chosen = i;
  card.hidden = i < 0;
  if (i >= 0) {
    const picture = card.querySelector(".picture");
    picture.textContent = thumbnails[i] ? "" : "no thumbnail";
    if (thumbnails[i]) {
      const image = new Image();
      image.src = thumbnails[i];
      image.alt = "";
      picture.append(image);
    }
    $("name").textContent = names[i];
    $("said").textContent = names[i];
    const width = card.offsetWidth, height = card.offsetHeight;
    const beside = screenX(i) + 16 + width < canvas.clientWidth ? screenX(i) + 16 : screenX(i) - 16 - width;
    card.style.left = Math.max(4, Math.min(beside, canvas.clientWidth - width - 4)) + "px";
    card.style.top = Math.max(4, Math.min(screenY(i) - height / 2, canvas.clientHeight - height - 4)) + "px";
  }
  draw();
}

function open_() {
  const source = chosen < 0 ? "" : folder + names[chosen];
  const path = source.split("/").map(encodeURIComponent).join("/");
  if (/^https?:\/\//i.test(source)) window.open(source, "_blank", "noopener");
  else if (source.startsWith("/")) window.open("file://" + path, "_blank", "noopener");
}

// One finger or the mouse moves, two fingers zoom.
const pointers = new Map();
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, event);
});
canvas.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return choose(nearest(event.offsetX, event.offsetY, 20));
  const byX = event.clientX - before.clientX, byY = event.clientY - before.clientY;
  if (pointers.size === 2) {
    const [other] = [...pointers.values()].filter((p) => p.pointerId !== event.pointerId);
    const spread = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
    const box = canvas.getBoundingClientRect();
    zoom(spread(event) / Math.max(1, spread(before)), other.clientX - box.left, other.clientY - box.top);
  } else if (byX || byY) {
    choose(-1);
    move(byX, byY);
  }
  pointers.set(event.pointerId, event);
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    pointers.delete(event.pointerId);
    if (event.pointerType === "touch") choose(nearest(event.offsetX, event.offsetY, 24));
  });
}
canvas.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") choose(-1); });
canvas.addEventListener("dblclick", open_);
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  choose(-1);
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
}, { passive: false });

const KEYS = {
  ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0),
  ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
  "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: showAll,
  " ": () => choose(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity)),
  Escape: () => choose(-1), Enter: open_,
};
canvas.addEventListener("keydown", (event) => {
  const action = KEYS[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (![" ", "Enter"].includes(event.key)) choose(-1);
  action();
});

$("closer").addEventListener("click", () => zoom(1.6));
$("farther").addEventListener("click", () => zoom(1 / 1.6));
$("all").addEventListener("click", showAll);
$("find").addEventListener("input", (event) => {
  const part = event.target.value.toLowerCase();
  found = part ? names.map((name) => name.toLowerCase().includes(part)) : null;
  $("said").textContent = found ? found.filter(Boolean).length + " points" : "";
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
showAll();
new ResizeObserver(() => { choose(-1); if (moved) draw(); else showAll(); }).observe(canvas);
