// Images of which two versions are sure, and not of the same product: what each said.
import { el } from "./dom.js";

const percent = (score) => `${Math.round(score * 100)} %`;

/** A few pictures, the newest first; nothing where there are none. */
export function differing({ version, beside, differing: images }) {
  if (!images.length) return null;
  return el("ul", { class: "differing", "aria-label": `Where versions ${version} and ${beside} differ` },
    ...images.map((one) => el("li", {}, figure(one, version, beside))));
}

function figure({ picture, image, item, score, beside_item: other, beside_score: sure, reviewed, edge }, version, beside) {
  return el("figure", { title: `${edge ? `${edge}, ` : ""}${image}` },
    picture ? el("img", { src: picture, alt: `${item} or ${other}`, loading: "lazy", width: 160, height: 120 }) : el("div", { class: "no-picture" }, "No picture"),
    el("figcaption", {},
      edge ? el("div", { class: "soft" }, edge) : null,
      el("div", {}, `v${version}: ${item} ${percent(score)}`),
      el("div", {}, `v${beside}: ${other} ${percent(sure)}`),
      reviewed ? el("b", {}, `Reviewed: ${reviewed === "other" ? "no product" : reviewed}`) : null));
}
