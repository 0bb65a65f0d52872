// History: the last answers of this browser, to look at, ask again, correct or clear.
import { card, isKnown, labelOf, priceText } from "./answer.js";
import { newKey } from "./api.js";
import { ask } from "./ask.js";
import { deliver } from "./courier.js";
import { $, dialog, el, icon, picture, toast, when } from "./dom.js";
import * as outbox from "./outbox.js";
import { HISTORY, clear, get, oldestFirst, remove } from "./store.js";
import { openTell } from "./tell.js";

let here = false;
let facts = {};

export async function enter(_, appFacts) {
  here = true;
  facts = appFacts;
  await show();
}

export function leave() {
  here = false;
}

async function show() {
  const [entries, waiting] = await Promise.all([oldestFirst(HISTORY), outbox.waiting()]);
  const tidy = entries.length
    ? el("button", { id: "clear", class: "button quiet", type: "button", onclick: askToClear }, "Clear") : null;
  $("history").replaceChildren(
    el("div", { class: "row" }, el("h2", { id: "history-title", class: "grow" }, "History"), tidy ?? ""),
    waiting.length ? waitingCard(waiting) : "",
    entries.length ? el("ul", { class: "entries" }, ...entries.reverse().map((entry) => el("li", {}, tile(entry)))) : empty(waiting.length),
  );
}

function tile(entry) {
  const { answer, error } = entry;
  const title = error ? "Not taken" : priceText(answer);
  const label = error ? entry.error : isKnown(answer) ? labelOf(answer) : "Unknown product";
  return el("button", { class: "entry", type: "button", onclick: () => open(entry.key) }, picture(entry.thumb),
    el("span", { class: "facts" }, el("strong", {}, title), el("span", {}, label),
      el("span", { class: "soft small" }, entry.taught ? `Taught: ${entry.taught}` : when(entry.at))));
}

function waitingCard(waiting) {
  const count = waiting.length;
  const now = el("button", { class: "button", type: "button", onclick: async () => {
    const { trouble } = await deliver({ all: true });
    if (trouble) toast(trouble.message);
  } }, "Send now");
  return el("div", { class: "card row", id: "on-their-way" }, el("div", { class: "grow" },
    el("h3", {}, `${count} ${count === 1 ? "photo waits" : "photos wait"} on this device`),
    el("p", { class: "soft" }, "Sent as soon as the shop answers, each once.")), now);
}

function empty(waiting) {
  return waiting ? "" : el("div", { class: "empty" }, icon("history"), el("h3", {}, "Nothing scanned yet"),
    el("p", { class: "soft" }, "Every answer is kept here with its photo, on this device alone: ask again when the shop has learnt more, or correct it."),
    el("a", { class: "button primary", href: "#scan" }, "Scan a product"));
}

async function open(key) {
  const entry = await get(HISTORY, key);
  if (!entry) return;
  const body = entry.answer ? card(entry.answer, entry.thumb) : el("p", { class: "error" }, entry.error);
  const again = el("button", { class: "button", type: "button", onclick: () => repeat(again, entry, box) }, "Ask again");
  const correct = el("button", { class: "button", type: "button", onclick: () => { box.close(); openTell(entry); } },
    entry.answer && isKnown(entry.answer) ? "Not this? Tell us" : "Tell us what it is");
  const drop = el("button", { class: "button quiet", type: "button", onclick: async () => { await remove(HISTORY, key); box.close(); await show(); } }, "Remove");
  const box = dialog(when(entry.at), picture(entry.photo, { class: "photo", alt: "Your photo" }), body, el("div", { class: "row" }, again, correct, drop));
}

async function repeat(button, entry, box) {
  button.disabled = true;
  try {
    const answer = await ask(entry.photo, { mqtt: facts.mqtt, key: newKey() });
    await outbox.remember({ ...entry, answer, error: "" });
    box.close();
    await open(entry.key);
  } catch (error) {
    toast(error.message);
    button.disabled = false;
  }
}

function askToClear() {
  const yes = el("button", { class: "button primary", type: "button", onclick: async () => { await clear(HISTORY); box.close(); await show(); } }, "Clear it");
  const no = el("button", { class: "button", type: "button", onclick: () => box.close() }, "Keep it");
  const box = dialog("Clear the history?", el("p", {}, "All answers and their photos go from this device. What the shop has learnt stays."), el("div", { class: "row" }, yes, no));
}

outbox.onChange(() => here && show());
