// Small help with SVG.
const SPACE = "http://www.w3.org/2000/svg";

/** Make an element: svg("rect", {x: 1, class: "node"}, child). */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A line through points as the `d` of a path; null is a gap. */
export function through(points) {
  let d = "";
  let drawing = false;
  for (const point of points) {
    if (point) d += `${drawing ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    drawing = Boolean(point);
  }
  return d;
}
