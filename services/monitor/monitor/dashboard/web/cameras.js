// Each camera: whether it is heard of, how much it sends, how sure its model is.
import { $, el } from "./dom.js";
import { svg, through } from "./svg.js";
import { minute, number, time } from "./words.js";

const [WIDTH, HEIGHT] = [72, 24];
const HEADS = [["Camera", "wide"], ["State", ""], ["Images", "right"], ["Unsure", "right"], ["Lately", ""]];

/** Of those that are silent, the last one to fall silent comes first. */
const fresher = (a, b) => (a.state === "live" ? 0 : b.last_seen.localeCompare(a.last_seen));

export function showCameras({ cameras, hub }) {
  const byName = (a, b) => a.edge.localeCompare(b.edge) || a.camera.localeCompare(b.camera, "en", { numeric: true });
  const silentFirst = (a, b) => Number(a.state === "live") - Number(b.state === "live");
  const all = [...cameras.values()].sort((a, b) => silentFirst(a, b) || fresher(a, b) || byName(a, b));
  if (!all.length) {
    $("cameras").replaceChildren(el("p", { class: "none" }, "No camera has been heard of yet. Try make cameras."));
    return;
  }
  const head = el("thead", {}, el("tr", {}, ...HEADS.map(([text, kind]) => el("th", { scope: "col", class: kind || null }, text))));
  const more = (hub.cameras ?? 0) - all.length;
  $("cameras").replaceChildren(
    el("table", { class: "table" }, head, el("tbody", {}, ...all.map(row))),
    more > 0 ? el("p", { class: "none" }, `and ${number(more)} more`) : "");
}

function row({ edge, camera, state, last_seen: seen, totals, windows }) {
  const unsure = Object.values(totals.uncertain).reduce((sum, count) => sum + count, 0);
  const share = totals.images ? `${Math.round((unsure / totals.images) * 100)} %` : "–";
  return el("tr", {},
    el("td", { class: "wide", title: `${camera}, ${edge}` }, el("strong", {}, camera), el("span", { class: "soft small" }, ` ${edge}`)),
    el("td", {}, el("span", { class: `live ${state}`, title: `last seen ${time(seen)}` }, state === "live" ? "live" : `silent ${minute(seen)}`)),
    el("td", { class: "right" }, number(totals.images)),
    el("td", { class: "right" }, share),
    el("td", {}, spark(windows.map(([, images]) => images))));
}

function spark(counts) {
  const most = Math.max(1, ...counts);
  const points = counts.map((count, index) => [(index / Math.max(1, counts.length - 1)) * WIDTH, HEIGHT - 2 - (count / most) * (HEIGHT - 4)]);
  return svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { d: through(points) }));
}
