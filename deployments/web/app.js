// The page: takes images and words, sends them in batches, and shows what comes back.

import { card } from "./cards.js";
import { $, count, number } from "./dom.js";
import { droppedFiles, fromFile, fromText, fromUrl, MOST_ITEMS, release } from "./items.js";
import { askForKey } from "./key.js";
import { showCode, showMatrix, showModel, showTimes } from "./results.js";
import { Sending } from "./sending.js";
import { models } from "./service.js";
import { findNearest } from "./similarity.js";

const SAMPLES = ["astronaut", "hopper", "cameraman", "cat", "coffee", "rocket", "galaxies", "retina"];

const MANY = 200; // images that take a while to compare

let served = []; // the entries of /v1/models
let model = null; // the one of them that embeds
let items = [];
let running = null; // the Sending of those that wait
let spent = { timing: {}, requests: 0, cached: 0 }; // of all requests together
let version = 0; // of the items and vectors on the page

const readsText = () => model?.modalities.includes("text");
const say = (text) => ($("status").textContent = text);

// What is added

function add(more) {
  const room = MOST_ITEMS - items.length;
  more.slice(room).forEach(release);
  const taken = more.slice(0, room);
  items.push(...taken);
  $("cards").append(...taken.map((item) => card(item, remove)));
  $("line-error").textContent =
    more.length > room
      ? `The page takes ${number.format(MOST_ITEMS)} at a time; \`raylens embed\` takes folders of any size.`
      : "";
  run();
}

function remove(item) {
  const index = items.indexOf(item);
  release(item);
  items.splice(index, 1);
  $(`item-${item.id}`).remove();
  const next = items[Math.min(index, items.length - 1)];
  (next ? $(`item-${next.id}`) : $("choose")).focus();
  if (!running) compare();
}

function clear() {
  running?.cancel();
  running = null;
  items.forEach(release);
  items = [];
  $("cards").replaceChildren();
  forgetTimes();
  compare();
  $("choose").focus();
}

function addLine(text) {
  const url = fromUrl(text.trim());
  if (url || readsText()) {
    add([url ?? fromText(text)]);
    return true;
  }
  $("line-error").textContent =
    "That is not a whole web address, such as https://example.org/photo.jpg. This model reads no words.";
  return false;
}

async function addSamples() {
  const files = SAMPLES.map(async (name) => {
    const response = await fetch(`web/samples/${name}.jpg`);
    return new File([await response.blob()], `${name}.jpg`, { type: "image/jpeg" });
  });
  add((await Promise.all(files)).map(fromFile));
}

// What is sent

async function run() {
  show();
  if (!model) return begin();
  if (running) return;
  const own = (running = new Sending(items, model, { settle, answered, pausing }));
  progress();
  try {
    if (good().length) await forgetReplaced();
    own.model = model;
    await own.run();
  } finally {
    if (running === own) { // else they were cleared meanwhile
      running = null;
      compare();
    }
  }
}

function answered(timing, cached) {
  spent.requests += 1;
  spent.cached += cached;
  for (const [name, ms] of Object.entries(timing)) spent.timing[name] = (spent.timing[name] ?? 0) + ms;
  progress();
}

/** The sentence once, for those who hear it; the seconds beside it. */
function pausing(error, left) {
  const isFirst = $("now").hidden;
  $("now").hidden = !error;
  $("left").textContent = error ? `${left} s` : "";
  if (!error) progress();
  else if (isFirst) say(`${error.message} Trying again in ${left} s.`);
}

function settle(item, state) {
  item.state = state;
  redraw(item);
}

function redraw(item) {
  const old = $(`item-${item.id}`);
  if (!old) return; // removed meanwhile
  const focused = old.contains(document.activeElement) ? document.activeElement.className : null;
  const made = card(item, remove);
  old.replaceWith(made);
  if (focused !== null) (made.querySelector(`.${focused || "none"}`) ?? made).focus();
}

/** Whether another try may end better: nothing makes a broken file whole. */
const mayWorkNow = (item) =>
  item.state === "stopped" ||
  (item.error && /^(fetch_|deadline_|unavailable|internal)/.test(item.code ?? ""));

function tryAgain() {
  for (const item of items.filter(mayWorkNow)) {
    Object.assign(item, { state: "waiting", error: null, code: null });
    redraw(item);
  }
  run();
}

// What is shown

const good = () => items.filter((item) => item.vector);

async function compare() {
  const mine = ++version;
  const found = good();
  progress();
  if (found.length > MANY) say("Comparing …");
  await findNearest(found, () => mine !== version);
  if (mine !== version) return;
  found.forEach(redraw);
  showMatrix(found);
  show();
}

function show() {
  const has = items.length > 0;
  document.body.classList.toggle("has-items", has);
  $("work").hidden = $("images").hidden = !has;
  progress();
  if (running) return;
  showTimes(spent);
  showCode(model ? items : [], model?.id);
}

function progress() {
  const done = items.filter((item) => item.vector || item.state === "bad").length;
  $("progress").hidden = $("cancel").hidden = !running;
  $("again").hidden = Boolean(running) || !items.some(mayWorkNow);
  $("models").disabled = Boolean(running);
  $("progress").max = items.length;
  $("progress").value = done;
  if (running) say(`Embedding ${number.format(done)} of ${number.format(items.length)} …`);
  else say(items.length ? summary() : "");
}

function summary() {
  if (!model) return "Waiting for the model.";
  const noun = items.some((item) => item.text !== undefined) ? "item" : "image";
  const bad = items.filter((item) => item.error).length;
  const stopped = items.filter((item) => item.state === "stopped" && !item.error).length;
  const parts = [`${count(good().length, noun)} embedded`];
  if (bad) parts.push(`${number.format(bad)} failed`);
  if (stopped) parts.push(`${number.format(stopped)} not sent`);
  return `${parts.join(", ")}.`;
}

// The model

let starting = null;

/** Asks which models there are, until the service tells. */
function begin() {
  starting ??= start().finally(() => (starting = null));
  return starting;
}

async function start() {
  for (served = []; !served.length; ) {
    try {
      served = (await models()).data;
    } catch (error) {
      $("serving").textContent = error.message;
      if (error.status === 401) return;
      await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfterS ?? 3)));
    }
  }
  $("models").replaceChildren(...served.map((one) => new Option(one.id, one.id)));
  $("which").hidden = served.length < 2;
  useModel(served[0]);
}

/** Vectors of two models are never compared: if this one was replaced, all are made anew. */
async function forgetReplaced() {
  const found = await models().catch(() => null);
  const now = found?.data.find((one) => one.id === model.id);
  const identity = (one) => [one.revision, one.precision, one.dimensions, one.engine].join();
  if (now && identity(now) !== identity(model)) adopt(now);
}

function useModel(next) {
  adopt(next);
  if (items.length) run();
}

function adopt(next) {
  model = next;
  showModel(model);
  $("line-label").textContent = readsText() ? "Image URL or words" : "Image URL";
  $("line").placeholder = readsText() ? "or an image URL, or words" : "or an image URL";
  forgetTimes();
  for (const item of items) {
    Object.assign(item, { vector: null, nearest: null, error: null });
    settle(item, "waiting");
  }
}

function forgetTimes() {
  spent = { timing: {}, requests: 0, cached: 0 };
}

// What people do

function listen() {
  $("choose").addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    add([...$("files").files].map(fromFile));
    $("files").value = "";
  });
  $("samples").addEventListener("click", addSamples);
  $("typed").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("line").value;
    if (text.trim() && addLine(text)) $("line").value = "";
  });
  $("now").addEventListener("click", () => running?.skipPause());
  $("cancel").addEventListener("click", () => running?.cancel());
  $("again").addEventListener("click", tryAgain);
  $("clear").addEventListener("click", clear);
  $("models").addEventListener("change", () => useModel(served[$("models").selectedIndex]));
  $("key").addEventListener("click", async () => {
    if ((await askForKey()) && !model) begin();
    else show();
  });

  addEventListener("paste", (event) => {
    if (event.target.closest?.("input, textarea")) return;
    const { files } = event.clipboardData;
    if (files.length) add([...files].map(fromFile));
    else addLinks(event.clipboardData.getData("text/plain"));
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    const links = event.dataTransfer.getData("text/uri-list");
    const files = await droppedFiles(event.dataTransfer);
    if (files.length) add(files.map(fromFile));
    else addLinks(links);
  });
}

/** The web addresses among some lines. */
function addLinks(lines) {
  const found = lines.split(/\s+/).map(fromUrl).filter(Boolean);
  if (found.length) add(found);
}

listen();
begin();
