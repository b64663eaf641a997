// What people put on the page: files, URLs and words, and how many of them go into one request.

import { bytes } from "./dom.js";

export const MOST_ITEMS = 1000;
// Small requests, so that progress shows and others are served in between.
const BATCH_ITEMS = 32;
const BATCH_BYTES = 8e6;
const IMAGE = /\.(jpe?g|jfif|png|webp|gif|bmp|avif|heic|heif|tiff?|jxl|svg|ico|jp2|dng)$/i;

let lastId = 0;

function item(name, rest) {
  return { id: ++lastId, name, state: "waiting", vector: null, error: null, nearest: null, ...rest };
}

export const fromFile = (file) => item(file.name, { file, preview: URL.createObjectURL(file) });
export const fromText = (text) => item(text, { text, input: { text } });

/** An http(s) URL; null for anything else. */
export function fromUrl(text) {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !/^https?:$/.test(url.protocol)) return null;
  const name = url.pathname.split("/").pop() || url.host;
  return item(name, { url: text, host: url.host, input: { url: text } });
}

export function release(item) {
  if (item.preview) URL.revokeObjectURL(item.preview);
}

/** The items that go into the next request: all files, or none. */
export function nextBatch(waiting, limits) {
  const isFile = Boolean(waiting[0].file);
  const mostItems = Math.min(BATCH_ITEMS, limits.max_items);
  const mostBytes = Math.min(BATCH_BYTES, limits.max_body_bytes * 0.9);
  const batch = [];
  let size = 0;
  for (const next of waiting) {
    size += next.file ? next.file.size : JSON.stringify(next.input).length;
    if (Boolean(next.file) !== isFile || batch.length === mostItems) break;
    if (batch.length && size > mostBytes) break;
    batch.push(next);
  }
  return batch;
}

/** Why a file need not be sent; null if it should be. */
export async function unfit(item, limits) {
  if (!item.file) return null;
  if (item.file.size > limits.max_image_bytes) {
    const most = bytes(limits.max_image_bytes);
    return `This file has ${bytes(item.file.size)}; the service takes at most ${most} per image.`;
  }
  try {
    await item.file.slice(0, 1).arrayBuffer();
  } catch {
    return "This file can no longer be read. Was it moved or changed?";
  }
  return null;
}

/** Files of a drop, those in its folders too if their names are those of images. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items]
    .filter((one) => one.kind === "file")
    .map((one) => ({ entry: one.webkitGetAsEntry?.(), file: one.getAsFile() }));
  const found = [];
  for (const { entry, file } of entries) {
    if (entry?.isDirectory) await readFolder(entry, found);
    else if (file) found.push(file);
  }
  return found;
}

async function readFolder(folder, found) {
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length || found.length > MOST_ITEMS) return; // one more than is taken
    for (const entry of entries) {
      if (entry.isDirectory) await readFolder(entry, found);
      else if (IMAGE.test(entry.name)) {
        found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
      }
    }
  }
}
