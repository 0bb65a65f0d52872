// How far a version has come at the edges of a group, ring by ring.
import { differing } from "./differing.js";
import { el } from "./dom.js";
import { time } from "./words.js";

/** What is to be said of a rollout; nothing once every edge is offered the version. */
export function rollout(found) {
  const { version, state, ring, rings, edges, reached, here, since, why } = found;
  if (state === "done") return [];
  const where = `ring ${ring} of ${rings}`;
  const words = state === "stopped" ? `Version ${version} was stopped in ${where}` : `Version ${version}, ${where}${state === "held" ? ", held" : ""}`;
  const aside = state === "stopped" ? "" : `${reached} of ${edges} edges${here ? ", this one too" : ""}`;
  return [el("section", { class: "rollout", "aria-label": "Rollout" },
    el("div", { class: "words" }, el("span", {}, words), el("span", {}, aside)),
    el("p", { class: `small ${state === "stopped" ? "bad" : "soft"}` }, `${why} · since ${time(since)}`),
    differing(found))];
}
