// Every image of every upload, accounted for: captured = stored + duplicates + rejected + pending.
import { $, el } from "./dom.js";
import { exact, time } from "./words.js";

const AGAIN_MS = 60_000;
const shown = new Map();
const PARTS = ["captured", "stored", "duplicates", "rejected", "pending", "withdrawn"];
const FAULTS = {
  missing: "missing", swapped: "with other content", contradicted: "contradicted by receipts",
  unaccounted: "in no receipt", unreadable: "receipts that cannot be read",
};

export function showAccounts(edges) {
  for (const name of edges.keys()) {
    if (shown.has(name)) continue;
    const section = el("div", { class: "books" }, el("h3", {}, name), el("p", { class: "none" }, "Counting…"));
    shown.set(name, section);
    $("account").append(section);
    count(name);
  }
  for (const [name, section] of shown) {
    if (edges.has(name)) continue;
    section.remove();
    shown.delete(name);
  }
}

$("recount").addEventListener("click", () => shown.forEach((_, name) => count(name)));
setInterval(() => document.hidden || shown.forEach((_, name) => count(name)), AGAIN_MS);

async function count(name) {
  let content;
  try {
    const answer = await fetch(`dashboard/account/${name}`);
    const facts = await answer.json();
    content = answer.ok ? books(facts) : [el("h3", {}, name), el("p", { class: "bad" }, facts.detail)];
  } catch {
    content = [el("h3", {}, name), el("p", { class: "none" }, "The server does not answer.")];
  }
  shown.get(name)?.replaceChildren(...content);
}

function books(facts) {
  const verdict = facts.adds_up ? ["good", "adds up"] : ["bad", "does not add up"];
  const sum = PARTS.map((part) => el("div", {}, el("dt", {}, part), el("dd", {}, exact(facts[part]))));
  const wrong = Object.entries(FAULTS).map(([kind, words]) => [words, facts[kind]]).filter(([, { count: many }]) => many).map(([words, { count: many, keys }]) =>
    el("details", {}, el("summary", { class: "bad" }, `${exact(many)} ${words}`), el("ul", {}, ...keys.map((key) => el("li", {}, key)))));
  return [
    el("h3", {}, facts.edge, el("span", { class: `pill ${verdict[0]}` }, verdict[1]), el("span", { class: "soft small" }, time(facts.at))),
    el("dl", { class: "sum" }, ...sum), ...wrong];
}
