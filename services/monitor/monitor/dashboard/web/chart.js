// A line chart by hand: a few lines over the last minutes, with a grid that says how much.
import { el } from "./dom.js";
import { svg, through } from "./svg.js";

const [LEFT, RIGHT, BOTTOM, TOP] = [52, 6, 20, 10];

/**
 * Draw lines `{name, points: [[ms, value] or null…], style}` into a place, with a key and words for who does not see.
 * The right end is `now`, in ms since 1970; the left one `seconds` before it.
 */
export function chart(place, { lines, format, label, seconds, now }) {
  const from = now - seconds * 1000;
  const shown = lines.map(({ points, ...line }) => ({ ...line, points: points.map((point) => (point && point[0] >= from ? point : null)) }));
  const values = shown.flatMap(({ points }) => points.filter(Boolean).map(([, value]) => value));
  if (!values.length) {
    place.replaceChildren(el("p", { class: "none" }, `Nothing in the last ${minutes(seconds)}.`));
    return;
  }
  const picture = svg("svg", { class: "chart", role: "img", "aria-label": label });
  place.replaceChildren(el("ul", { class: "keys" }, ...shown.map(key(format))), picture);
  // Drawn at the size that it has, so that its letters keep theirs.
  const { width, height } = picture.getBoundingClientRect();
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const top = ceiling(Math.max(...values));
  const x = (when) => LEFT + (Math.min(1, (when - from) / (now - from))) * (width - LEFT - RIGHT);
  const y = (value) => height - BOTTOM - (value / top) * (height - BOTTOM - TOP);
  const grid = [0, 0.5, 1].flatMap((share) => [
    svg("line", { class: "grid", x1: LEFT, x2: width, y1: y(top * share), y2: y(top * share) }),
    svg("text", { x: LEFT - 8, y: y(top * share) + 4, "text-anchor": "end" }, format(top * share)),
  ]);
  const scale = [svg("text", { x: LEFT, y: height - 4 }, `${minutes(seconds)} ago`), svg("text", { x: width, y: height - 4, "text-anchor": "end" }, "now")];
  const drawn = shown.flatMap(({ points, style }) => {
    const placed = points.map((point) => point && [x(point[0]), y(point[1])]);
    const line = svg("path", { class: `line ${style}`, d: through(placed) });
    const last = placed.findLast(Boolean);
    const end = last ? svg("circle", { class: `end ${style}`, cx: last[0], cy: last[1], r: 3.5 }) : "";
    return [shown.length === 1 ? under(placed.filter(Boolean), y(0)) : "", line, end];
  });
  picture.append(...grid, ...scale, ...drawn);
}

const minutes = (seconds) => `${Math.round(seconds / 60)} min`;

const key = (format) => ({ name, points, style }) => {
  const last = points.findLast(Boolean);
  return el("li", {}, el("i", { class: style }), name, " ", el("b", {}, last ? format(last[1]) : "–"));
};

/** The area between a line and the ground. */
const under = (points, ground) => svg("path", { class: "area", d: `${through(points)}L${points.at(-1)[0]} ${ground}L${points[0][0]} ${ground}Z` });

/** The next round number above. */
function ceiling(value) {
  if (value <= 0) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((step) => step * size).find((round) => round >= value * 1.001);
}
