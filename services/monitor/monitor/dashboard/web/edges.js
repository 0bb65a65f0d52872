// Each edge: what is being stored and learned for it, and what it serves beside what is ready.
import { $, el } from "./dom.js";
import { comparing, quality } from "./quality.js";
import { allReports, report } from "./reports.js";
import { rollout } from "./rollout.js";
import { waitingBatches } from "./waiting.js";
import { number, time } from "./words.js";

const cards = new Map();
const FRESH_MS = 10 * 60 * 1000;

export function showEdges(edges) {
  for (const edge of edges.values()) {
    const text = JSON.stringify(edge);
    if (cards.get(edge.edge)?.text === text) continue;
    const card = el("article", { class: "card edge", "aria-label": edge.edge }, title(edge), ...waitingBatches(edge), ...work(edge), ...versions(edge), ...comparing(edge), ...quality(edge));
    const before = cards.get(edge.edge)?.card;
    if (before) before.replaceWith(card);
    else $("edges").append(card);
    cards.set(edge.edge, { card, text });
  }
  for (const [name, { card }] of cards) {
    if (edges.has(name)) continue;
    card.remove();
    cards.delete(name);
  }
}

function title({ edge, group, link }) {
  const words = { up: "link up", down: "link down", unknown: "not heard of" }[link.state];
  return el("h3", {}, edge, group ? el("span", { class: "group" }, ` of ${group}`) : null, el("span", { class: `pill ${link.state === "up" ? "good" : "bad"}`, title: link.heard ? `last heard of ${time(link.heard)}` : null }, words));
}

function work({ edge, upload, training, rejected }) {
  const lines = [];
  if (upload?.state === "storing") lines.push(line(`Storing: ${number(upload.images)} images so far`, "", null));
  else if (upload && Date.now() - new Date(upload.at) < FRESH_MS) lines.push(line(`Stored: ${number(upload.files)} images`, time(upload.at)));
  if (training?.running) lines.push(line(`Training: ${training.doing}`, `${Math.round(training.progress * 100)} %`, training.progress));
  else if (training?.stage === "failed") lines.push(el("p", { class: "bad small" }, `Training failed ${time(training.at)}: ${training.reason}`));
  else if (training?.stage === "skipped") lines.push(line("Training: nothing new to learn", time(training.at)));
  else if (training) lines.push(line("Training: done", time(training.at)));
  if (rejected) lines.push(heldBack(edge, rejected));
  if (!lines.length) lines.push(el("p", { class: "none" }, "Nothing is being uploaded or learned."));
  return lines;
}

function heldBack(edge, { model, version, reason, at }) {
  const words = `${version ? `Version ${version} was held back` : "No new version"} (${time(at)}): ${reason}`;
  return el("p", { class: "bad small" }, words, version ? " · " : "", version ? report(edge, model, version) : "");
}

function line(words, aside, share) {
  const text = el("div", { class: "words" }, el("span", {}, words), el("span", {}, aside));
  if (share === undefined) return el("div", { class: "work" }, text);
  const fill = el("span");
  if (share !== null) fill.style.transform = `scaleX(${share})`;
  const meter = share === null
    ? el("div", { class: "meter unknown", "aria-hidden": "true" }, fill)
    : el("div", { class: "meter", role: "progressbar", "aria-label": words, "aria-valuenow": Math.round(share * 100), "aria-valuemin": 0, "aria-valuemax": 100 }, fill);
  return el("div", { class: "work" }, text, meter);
}

function versions({ edge, models, rejected, rollouts, ready_fault: fault }) {
  const rows = [...rollouts.flatMap(rollout), ...models.map((model) => version(edge, model))];
  if (fault) rows.push(el("p", { class: "bad small" }, `What is ready cannot be listed: ${fault}`));
  if (!models.length && !fault) rows.push(el("p", { class: "none" }, "No model yet."));
  if (models.length) rows.push(allReports(edge, JSON.stringify([models.map(({ ready }) => ready), rejected])));
  return rows;
}

function version(edge, { model, ready, serving, since, state, reason }) {
  const pair = el("span", { class: "pair" }, el("b", { class: state === "differs" ? "bad" : null }, serving ? `v${serving}` : "none"),
    state === "same" ? null : el("span", { class: "next" }, ready ? report(edge, model, ready, `ready: v${ready}`) : "none ready"));
  return el("div", { class: "version" },
    el("span", { class: "model" }, model), pair,
    reason ? el("p", { class: `why ${state === "differs" ? "bad" : "soft"}` }, reason) : null,
    serving ? el("p", { class: "since" }, since ? `serves since ${time(since)} · ` : "", report(edge, model, serving)) : null);
}
