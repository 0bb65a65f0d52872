// What the models here have learnt: the newest versions of each, with the report of their training.
import { call } from "./api.js";
import { dialog, el, percent, when } from "./dom.js";

const LISTED = 5; // versions of each model

/** Show the models; `answer` is marked with the version that gave it. */
export async function openModels(answer = {}) {
  const body = el("div", { class: "stack", role: "status" }, el("p", { class: "soft" }, "Looking at the models…"));
  dialog("What the shop has learnt", body);
  try {
    const { models } = await call("models");
    body.replaceChildren(...models.map((each) => modelCard(each, answer)));
    if (!models.length) body.append(el("p", {}, "Nothing yet: the first model comes after the first photos were sent to training."));
  } catch (error) {
    body.replaceChildren(el("p", { class: "error" }, error.message));
  }
}

function modelCard({ model, versions, older }, answer) {
  const listed = versions.slice(0, LISTED);
  const left = versions.length + older - listed.length;
  const rows = listed.map((each) => versionRow(each, model === answer.model && each.version === answer.version));
  return el("section", { class: "card stack" }, el("h3", {}, model), el("ul", { class: "stack" }, ...rows),
    left ? el("p", { class: "soft small" }, `${left} older ${left === 1 ? "version" : "versions"}`) : "");
}

function versionRow({ version, created, metrics, report }, asked) {
  const facts = [asked ? "gave this answer" : "", created ? when(created) : "made elsewhere", rightness(metrics)];
  const link = { class: "button", href: report, target: "_blank", rel: "noopener", "aria-label": `Report of version ${version}` };
  return el("li", { class: "row" },
    el("div", { class: "grow" }, el("strong", {}, `Version ${version}`), el("p", { class: "soft small" }, facts.filter(Boolean).join(" · "))),
    report ? el("a", link, "Report") : "");
}

const rightness = (metrics) =>
  typeof metrics?.accuracy === "number" ? `${percent(metrics.accuracy)} of ${metrics.held_out ?? "its"} test photos right` : "";
