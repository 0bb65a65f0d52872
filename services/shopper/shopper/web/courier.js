// Carries the outbox to the shop: at the start, when the network is back, when something new is due.
import { $ } from "./dom.js";
import { Away } from "./api.js";
import * as outbox from "./outbox.js";

const AGAIN_MS = 15000;
let timer;

export async function deliver(options) {
  clearTimeout(timer);
  const { left, trouble } = await outbox.flush(options);
  if (trouble instanceof Away) outbox.wakeLater();
  if (left) timer = setTimeout(deliver, trouble ? AGAIN_MS : await nextDue());
  return { left, trouble };
}

/** Send once the time to undo is over. */
export function deliverAfter(ms) {
  clearTimeout(timer);
  timer = setTimeout(deliver, ms);
}

async function nextDue() {
  const dues = (await outbox.waiting()).map((entry) => entry.due);
  return Math.max(200, Math.min(...dues, Date.now() + AGAIN_MS) - Date.now() + 50);
}

async function showWaiting() {
  const late = (await outbox.waiting()).filter((entry) => entry.due <= Date.now()).length;
  $("waiting").hidden = !late;
  $("waiting").textContent = `${late} waiting`;
  $("waiting").setAttribute("aria-label", `${late} ${late === 1 ? "photo waits" : "photos wait"} to be sent`);
}

export function begin() {
  window.addEventListener("online", () => deliver());
  document.addEventListener("visibilitychange", () => document.hidden || deliver());
  outbox.onChange(showWaiting);
  showWaiting();
  deliver();
}
