// Photos on their way: kept in the browser until the shop has them, sent once each. Runs in pages and in the
// service worker; a lock sees to it that one of them sends, and a key of its own that a repeat does no harm.
import { Away, Refused, call, newKey, postJson } from "./api.js";
import { dataUrl } from "./photo.js";
import { HISTORY, OUTBOX, get, keysOldestFirst, oldestFirst, put, remove, transact } from "./store.js";

const MAX_WAITING = 300;
const MAX_HISTORY = 60;
const CHANNEL = "caravan";
const channel = new BroadcastChannel(CHANNEL);

/** Call `hear` when photos come or go, whichever page or worker did it. */
export const onChange = (hear) => new BroadcastChannel(CHANNEL).addEventListener("message", hear);

/** Put a photo in: {kind: "scan" | "teach", photo, thumb, product, isNew}; it leaves after `hold` ms at the earliest. */
export async function add(entry, hold = 0) {
  if ((await keysOldestFirst(OUTBOX)).length >= MAX_WAITING) {
    throw new Error(`${MAX_WAITING} photos wait already. Find a network first, then go on.`);
  }
  const at = Date.now();
  const kept = { key: newKey(), at, due: at + hold, ...entry };
  await put(OUTBOX, kept);
  changed();
  return kept;
}

export const waiting = () => oldestFirst(OUTBOX);

/** Take a photo back that is still held; tells whether it was. */
export async function takeBack(key) {
  let held = false;
  await transact(OUTBOX, (store) => {
    store.get(key).onsuccess = ({ target: { result } }) => {
      held = result !== undefined && result.due > Date.now();
      if (held) store.delete(key);
    };
  });
  changed();
  return held;
}

/** Send what is due, oldest first; `all` sends what is held back too. Tells how many are left, and why. */
export const flush = ({ all = false } = {}) => lock(async () => {
  let trouble = null;
  for (const entry of await waiting()) {
    if (!all && entry.due > Date.now()) continue;
    if (!(await get(OUTBOX, entry.key))) continue; // taken back since
    try {
      await settle(entry, await send(entry));
    } catch (error) {
      if (!(error instanceof Away || error instanceof Refused)) throw error;
      trouble = error;
      if (error instanceof Away || error.later) break;
      await settle(entry, null, error.message);
    }
  }
  return { left: (await keysOldestFirst(OUTBOX)).length, trouble };
});

/** Ask the browser to wake the service worker when there is a network again. */
export async function wakeLater() {
  try {
    const registration = await navigator.serviceWorker?.ready;
    await registration?.sync?.register("outbox");
  } catch {
    // Not allowed or not there: the page sends when it is back.
  }
}

/** Keep an answer in the history, which is bounded: the oldest give way. */
export async function remember(entry) {
  await put(HISTORY, entry);
  const keys = await keysOldestFirst(HISTORY);
  for (const key of keys.slice(0, Math.max(0, keys.length - MAX_HISTORY))) await remove(HISTORY, key);
  changed();
}

function send({ key, kind, photo, product, isNew }) {
  const once = { "Idempotency-Key": key };
  if (kind === "scan") {
    return call("binary", { method: "POST", body: photo, headers: { "Content-Type": "image/jpeg", ...once } });
  }
  return dataUrl(photo).then((image) => postJson("ingestion", { image, product, new: Boolean(isNew) }, once));
}

/** Out of the outbox, into the history, at once or not at all; training photos leave no trace unless refused. */
async function settle(entry, answer, error = "") {
  const { key, kind, at, photo, thumb, product } = entry;
  await transact([OUTBOX, HISTORY], (outbox, history) => {
    if (kind === "scan" || error) history.put({ key, at, kind, photo, thumb, answer, error, product });
    outbox.delete(key);
  });
  changed();
}

const changed = () => channel.postMessage("changed");

let last = Promise.resolve();

function lock(work) {
  if (navigator.locks) return navigator.locks.request("caravan-outbox", work);
  last = last.catch(() => {}).then(work);
  return last;
}
