// Sends what waits, batch by batch, and waits when the service asks to.

import { nextBatch, unfit } from "./items.js";
import { embed } from "./service.js";

const MOST_RETRIES = 8;
// Errors of a request as a whole that others may not share.
const OWN_ERRORS = [400, 413, 422];

/** One list of items on its way. `shown` is how it tells what happens: `settle(item, state)`,
 * `answered(timing, cached)` after each request, and `pausing(error, seconds left)`, null at the end. */
export class Sending {
  constructor(items, model, shown) {
    Object.assign(this, { items, model, shown });
    this.stop = new AbortController();
    this.skipPause = () => {};
  }

  cancel() {
    this.stop.abort();
  }

  /** Until nothing waits, or it is cancelled. What is wrong with an item is its `error`; what is
   * wrong with the service or the key stops all that are left, each with the reason. */
  async run() {
    try {
      while (!this.stop.signal.aborted) {
        const waiting = this.items.filter((item) => item.state === "waiting");
        if (!waiting.length) return;
        await this.send(nextBatch(waiting, this.model.limits));
      }
    } catch (error) {
      const isCancelled = error.name === "AbortError";
      if (!isCancelled && !("status" in error)) throw error;
      this.stopRest(isCancelled ? null : error.message);
    }
  }

  stopRest(reason) {
    for (const item of this.items) {
      if (item.state !== "sending" && item.state !== "waiting") continue;
      item.error = reason;
      this.shown.settle(item, "stopped");
    }
  }

  async send(batch) {
    for (const item of batch) {
      item.error = await unfit(item, this.model.limits);
      this.shown.settle(item, item.error ? "bad" : "sending");
    }
    const sent = batch.filter((item) => !item.error);
    if (!sent.length) return;
    const rows = await this.rows(sent);
    sent.forEach((item, index) => {
      Object.assign(item, rows[index]);
      this.shown.settle(item, item.error ? "bad" : "good");
    });
  }

  async rows(batch) {
    for (let retries = 0; ; retries++) {
      try {
        const { rows, timing, cached } = await embed(batch, this.model, this.stop.signal);
        this.shown.answered(timing, cached);
        return rows;
      } catch (error) {
        if (error.isBusy && retries < MOST_RETRIES) await this.pause(error);
        else if (OWN_ERRORS.includes(error.status)) return batch.map(() => ({ error: error.message }));
        else throw error;
      }
    }
  }

  /** As long as the service asks for. */
  async pause(error) {
    const { signal } = this.stop;
    let left = Math.ceil(error.retryAfterS ?? 2);
    let clock;
    await new Promise((resolve) => {
      this.skipPause = resolve;
      signal.addEventListener("abort", resolve, { once: true });
      this.shown.pausing(error, left);
      clock = setInterval(() => {
        left -= 1;
        if (left > 0) this.shown.pausing(error, left);
        else resolve();
      }, 1000);
    });
    clearInterval(clock);
    this.shown.pausing(null, 0);
    signal.throwIfAborted();
  }
}
