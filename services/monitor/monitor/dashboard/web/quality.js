// How often an edge's answers are right: spot checks of today and the seven days before, and what they leave open.
import { differing } from "./differing.js";
import { el } from "./dom.js";
import { minute, number } from "./words.js";

const whole = (share) => Math.round(share * 100);

export function quality({ quality: found }) {
  if (!found || !found.all.answers) return [];
  const { all, products, asked, drift } = found;
  const wrong = products.filter((each) => each.confidently_wrong);
  const told = all.share === null ? `${number(asked)} spot checks wait in the review` : `${interval(all)}, ${number(all.labelled)} labels`;
  const labelled = products.filter((each) => each.accuracy.share !== null);
  return [
    el("div", { class: "words accuracy" }, el("span", {}, "Right this week"), el("span", {}, told)),
    drift ? el("p", { class: "bad small" }, unlike(drift)) : null,
    ...wrong.map((each) => el("p", { class: "bad small" },
      `${each.label} is confidently wrong${each.wrong_for ? `: mostly ${each.wrong_for}` : ""}. Teach some photos of both.`)),
    labelled.length ? el("table", { class: "sure" },
      el("thead", { class: "unseen" }, el("tr", {}, ...["Product", "Between", "Right"].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, ...labelled.map(row))) : null,
  ];
}

/** A new version beside the one before: what the edge found so far. */
export function comparing({ comparisons }) {
  return comparisons.map((found) => {
    const { model, outcome, says } = found;
    return el("section", { class: "comparing", "aria-label": `Versions of ${model}` },
      el("p", { class: outcome === "stop" ? "bad small" : "small" }, `${model}, ${DONE[outcome]}: ${says}`),
      differing(found));
  });
}

const DONE = { stop: "stopped", promote: "answers all", wait: "compared" };

const unlike = ({ version, since, images }) =>
  `Answers of version ${version} look unlike those before, since ${minute(since)}: label the ${number(images)} photos in its review that show it best.`;

const interval = ({ share, low, high }) => `${whole(share)} % (${whole(low)} to ${whole(high)})`;

function row({ label, accuracy, confidently_wrong: wrong }) {
  const { share, low, high, labelled } = accuracy;
  const range = el("i", { class: "range" });
  range.style.left = `${low * 100}%`;
  range.style.width = `${(high - low) * 100}%`;
  const point = el("i", { class: "point" });
  point.style.left = `${share * 100}%`;
  return el("tr", { class: wrong ? "bad" : null, title: `${interval(accuracy)}, ${number(labelled)} labels` },
    el("th", { scope: "row" }, label),
    el("td", { class: "wide" }, el("div", { class: "scale", "aria-hidden": "true" }, range, point)),
    el("td", { class: "count" }, interval(accuracy)));
}
