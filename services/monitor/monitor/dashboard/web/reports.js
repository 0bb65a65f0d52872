// The training reports of an edge: of every version that was ever made for it, also of those that were held back.
import { el } from "./dom.js";
import { time } from "./words.js";

const shown = new Map();

/** A link to one report. */
export const report = (edge, model, version, words = `report of v${version}`) => el("a", { href: `reports/${edge}/${model}/${version}` }, words);

/** The list of all; the same element each time, so that it stays open. `stamp` changes when there may be more. */
export function allReports(edge, stamp) {
  if (!shown.has(edge)) {
    const list = el("ul", {});
    const details = el("details", { class: "reports", ontoggle: () => details.open && load(edge) }, el("summary", {}, "All training reports"), list);
    shown.set(edge, { details, list, stamp });
  }
  const one = shown.get(edge);
  if (one.stamp !== stamp && one.details.open) load(edge);
  one.stamp = stamp;
  return one.details;
}

async function load(edge) {
  let items;
  try {
    const answer = await fetch(`reports/${edge}`);
    const facts = await answer.json();
    items = answer.ok ? facts.models.flatMap((model) => ofModel(edge, model)) : [line(facts.detail)];
  } catch {
    items = [line("The server does not answer.")];
  }
  shown.get(edge).list.replaceChildren(...(items.length ? items : [line("None yet.")]));
}

function ofModel(edge, { model, held, versions }) {
  const items = versions.map((version) => item(edge, model, version));
  return held ? [el("li", { class: "bad" }, `${model} is ${held}`), ...items] : items;
}

function item(edge, model, { version, verdict, rejected, created, metrics }) {
  const right = metrics?.accuracy === undefined ? "" : `${Math.round(metrics.accuracy * 100)} % right`;
  const words = verdict === "rejected" ? el("span", { class: "bad", title: rejected }, "held back") : right;
  return el("li", {}, report(edge, model, version, `${model} v${version}`), el("span", {}, words), el("span", { class: "soft" }, created ? time(created) : ""));
}

const line = (text) => el("li", { class: "soft" }, text);
