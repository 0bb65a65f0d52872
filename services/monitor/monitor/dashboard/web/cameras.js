// Each camera: whether it is heard of, how much it sends, how sure its model is.
import { $, el } from "./dom.js";
import { svg, through } from "./svg.js";
import { number, time } from "./words.js";

const [WIDTH, HEIGHT] = [112, 24];

export function showCameras({ cameras, hub }) {
  const all = [...cameras.values()].sort((a, b) => Number(a.state === "live") - Number(b.state === "live") || a.edge.localeCompare(b.edge) || a.camera.localeCompare(b.camera, "en", { numeric: true }));
  if (!all.length) {
    $("cameras").replaceChildren(el("p", { class: "none" }, "No camera has been heard of yet. Try make cameras."));
    return;
  }
  const head = el("thead", {}, el("tr", {}, ...[["Camera", ""], ["State", ""], ["Images", "right"], ["Unsure", "right"], ["Last minutes", ""]].map(([text, kind]) => el("th", { scope: "col", class: kind || null }, text))));
  const more = (hub.cameras ?? 0) - all.length;
  $("cameras").replaceChildren(
    el("table", { class: "table" }, head, el("tbody", {}, ...all.map(row))),
    more > 0 ? el("p", { class: "none" }, `and ${number(more)} more`) : "");
}

function row({ edge, camera, state, last_seen: seen, totals, windows }) {
  const unsure = Object.values(totals.uncertain).reduce((sum, count) => sum + count, 0);
  const share = totals.images ? `${Math.round((unsure / totals.images) * 100)} %` : "–";
  return el("tr", {},
    el("td", {}, el("strong", {}, camera), el("span", { class: "soft small" }, ` ${edge}`)),
    el("td", {}, el("span", { class: `live ${state}`, title: time(seen) }, state === "live" ? "live" : `silent since ${time(seen)}`)),
    el("td", { class: "right" }, number(totals.images)),
    el("td", { class: "right" }, share),
    el("td", {}, spark(windows.map(([, images]) => images))));
}

function spark(counts) {
  const most = Math.max(1, ...counts);
  const points = counts.map((count, index) => [(index / Math.max(1, counts.length - 1)) * WIDTH, HEIGHT - 2 - (count / most) * (HEIGHT - 4)]);
  return svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { d: through(points) }));
}
