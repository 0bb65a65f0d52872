// Dead letters: what could not be handled, why, and a way to send it again once that is mended.
import { $, el, say, toast } from "./dom.js";
import { bytes, number, time } from "./words.js";

const told = new Map();
const open = new Set();

export function showLetters(topics) {
  topics.forEach(tell);
  const waiting = topics.filter(({ count, replaying }) => count || replaying);
  $("letters").replaceChildren(...(waiting.length ? waiting.map(section) : [el("p", { class: "none" }, "None: everything could be handled.")]));
}

function section({ topic, count, replaying, letters }) {
  const button = el("button", { class: "button", type: "button", disabled: replaying, onclick: () => replay(topic) }, replaying ? "Sending…" : "Send again");
  const more = count - letters.length;
  return el("div", { class: "letters" },
    el("div", { class: "row" }, el("h3", {}, topic, el("span", { class: "soft" }, ` · ${number(count)} ${count === 1 ? "letter" : "letters"}`)), button),
    ...letters.map((letter) => item(topic, letter)),
    more > 0 && letters.length ? el("p", { class: "none" }, `and ${number(more)} older`) : "");
}

function item(topic, { partition, offset, at, route, code, reason, key, headers, size, whole, kind, look }) {
  const id = `${topic} ${partition} ${offset}`;
  const facts = [["route", route], ["kind of fault", code], ["key", key], ...Object.entries(headers), ["value", whole ? `${bytes(size)}, ${kind}` : `${bytes(size)}, too large to be kept: it is read from its own topic`]];
  const details = el("details", { class: "letter", open: open.has(id) },
    el("summary", {}, el("time", { datetime: at }, time(at)), el("span", { class: "why" }, reason || "no reason given")),
    el("dl", {}, ...facts.filter(([, text]) => text).flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])),
    look ? el("pre", {}, look) : "");
  // The list is drawn anew when it changes; what is open stays open.
  details.addEventListener("toggle", () => (details.open ? open.add(id) : open.delete(id)));
  return details;
}

async function replay(topic) {
  try {
    const answer = await fetch(`dashboard/dead-letters/${encodeURIComponent(topic)}/replay`, { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
    if (answer.status === 401) location.assign("login");
    else if (!answer.ok) toast(`Not sent: ${(await answer.json()).detail}`);
    else say(`Sending the letters of ${topic} again`);
  } catch {
    toast("Not sent: the server does not answer.");
  }
}

/** Tell once how sending has ended. */
function tell({ topic, result }) {
  if (!result || told.get(topic) === result.at) return;
  const first = !told.has(topic) && Date.now() - new Date(result.at) > 60_000;
  told.set(topic, result.at);
  if (first) return;
  const fault = result.sent === null ? `not sent: ${result.fault}` : result.fault;
  const words = fault ? `${topic}: ${fault}` : `${topic}: ${number(result.sent)} ${result.sent === 1 ? "message" : "messages"} sent again`;
  toast(words);
}
