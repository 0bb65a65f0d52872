// The last images that a model was unsure of, with what it thought.
import { $, el } from "./dom.js";
import { time } from "./words.js";

const SHOWN = 3;
const shown = new Map();

export function showUncertain(images) {
  const list = $("uncertain");
  if (!images.length) {
    shown.clear();
    list.replaceChildren(el("li", { class: "none" }, "None so far."));
    return;
  }
  if (!shown.size) list.replaceChildren();
  const ids = new Set(images.map(({ id }) => id));
  for (const [id, item] of shown) {
    if (ids.has(id)) continue;
    item.remove();
    shown.delete(id);
  }
  for (const one of images.toReversed()) {
    if (shown.has(one.id)) continue;
    const item = el("li", {}, figure(one));
    shown.set(one.id, item);
    list.prepend(item);
  }
}

function figure({ image, camera, edge, timestamp, predictions, class: item, probability }) {
  const best = Object.entries(predictions).sort(([, a], [, b]) => b - a).slice(0, SHOWN);
  const picture = image
    ? el("img", { src: image.slice(1), alt: `Perhaps ${item}`, loading: "lazy", width: 160, height: 120 })
    : el("div", { class: "no-picture" });
  const guesses = best.length ? best : [[item, probability]];
  const words = guesses.map(([name, share], index) => el(index ? "span" : "b", { class: index ? "soft" : null }, `${name} ${Math.round(share * 100)} %`, el("br")));
  return el("figure", { title: `${edge}, ${camera}, ${time(timestamp)}` }, picture, el("figcaption", {}, ...words));
}
