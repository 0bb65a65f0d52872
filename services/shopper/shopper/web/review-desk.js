// The review's dealings with the shop: pages of photos in, decisions out, each held a moment so that it can be undone.
import { call } from "./api.js";
import { toast } from "./dom.js";

const UNDO_MS = 6000;
const TRIES = 10; // pages without a photo to look at, before people are asked whether to go on

let next = ""; // where to go on; null at the end
let held = null; // the last decision, as long as it can be undone

export const isMore = () => next !== null;

export function forget() {
  next = "";
}

/** Where a photo is; the names in it may have any letters. */
export const address = (image) => `review/${image.split("/").map(encodeURIComponent).join("/")}`;

/** The next photos; none where a long way has none. */
export async function more() {
  for (let tries = 0; tries < TRIES && next !== null; tries++) {
    const page = await call(`review?after=${encodeURIComponent(next)}`);
    next = page.next;
    if (page.images.length) return page.images;
  }
  return [];
}

/** Carry decisions out, once the time to undo them is over; throws what the shop says against them. */
export async function decide(decisions, text, undone) {
  await settle();
  return new Promise((resolve, reject) => {
    const mine = { decisions, undone, resolve, reject };
    mine.line = toast(text, { label: "Undo", act: () => undo(mine) }, UNDO_MS);
    mine.timer = setTimeout(settle, UNDO_MS);
    held = mine;
  });
}

export function undo(which = held) {
  if (!which || which !== held) return;
  held = null;
  clearTimeout(which.timer);
  which.line.remove();
  which.undone();
  which.resolve();
}

/** Send what is held now. */
export async function settle({ keepalive = false } = {}) {
  const mine = held;
  if (!mine) return;
  held = null;
  clearTimeout(mine.timer);
  mine.line.remove();
  const body = JSON.stringify({ decisions: mine.decisions });
  try {
    await call("review", { method: "POST", headers: { "Content-Type": "application/json" }, body, keepalive });
    mine.resolve();
  } catch (error) {
    mine.reject(error);
  }
}
