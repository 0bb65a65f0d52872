// A line chart by hand: a few lines over the last minutes, with a grid that says how much.
import { el } from "./dom.js";
import { svg, through } from "./svg.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [420, 150, 44, 18, 10];

/** Draw lines `{name, points: [[ms, value] or null…], style}` into a place, with a key and words for who does not see. */
export function chart(place, { lines, format, label, seconds }) {
  const values = lines.flatMap(({ points }) => points.filter(Boolean).map(([, value]) => value));
  if (!values.length) {
    place.replaceChildren(el("p", { class: "none" }, "No camera has been heard of yet."));
    return;
  }
  const top = ceiling(Math.max(...values));
  const now = Math.max(...lines.flatMap(({ points }) => points.filter(Boolean).map(([when]) => when)));
  const from = now - seconds * 1000;
  const x = (when) => LEFT + ((when - from) / (now - from)) * (WIDTH - LEFT - 6);
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
  const grid = [0, 0.5, 1].flatMap((share) => [
    svg("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(top * share), y2: y(top * share) }),
    svg("text", { x: LEFT - 6, y: y(top * share) + 4, "text-anchor": "end" }, format(top * share)),
  ]);
  const minutes = Math.round(seconds / 60);
  const scale = [svg("text", { x: LEFT, y: HEIGHT - 3 }, `${minutes} min ago`), svg("text", { x: WIDTH, y: HEIGHT - 3, "text-anchor": "end" }, "now")];
  const drawn = lines.flatMap(({ points, style }, index) => {
    const placed = points.map((point) => point && point[0] >= from ? [x(point[0]), y(point[1])] : null);
    const last = placed.findLast(Boolean);
    const line = svg("path", { class: `line ${style ?? ""}`, d: through(placed) });
    if (index || lines.length > 1 || !last) return [line];
    const first = placed.find(Boolean);
    const area = svg("path", { class: "area", d: `${through(placed.filter(Boolean))}L${last[0]} ${y(0)}L${first[0]} ${y(0)}Z` });
    return [area, line, svg("circle", { class: "end", cx: last[0], cy: last[1], r: 3.5 })];
  });
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label }, ...grid, ...scale, ...drawn);
  const keys = lines.map(({ name, points, style }) => {
    const last = points.findLast(Boolean);
    return el("li", {}, el("i", { class: style }), name, " ", el("b", {}, last ? format(last[1]) : "–"));
  });
  place.replaceChildren(el("ul", { class: "keys" }, ...keys), picture);
}

/** The next round number above. */
function ceiling(value) {
  if (value <= 0) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * size).find((round) => round >= value * 1.001);
}
