// An answer, as people read it.
import { el, percent, picture, pretty } from "./dom.js";

export const isKnown = (answer) => answer.known === "true";

export const labelOf = (answer) => pretty(answer.label, answer.item);

/** The price in words: $4.99, or that there is none. */
export function priceText(answer) {
  if (!isKnown(answer)) return "Not known yet";
  return answer.price === "N/A" ? "No price yet" : `$${answer.price}`;
}

/** One line for a screen reader. */
export function spoken(answer) {
  if (!isKnown(answer)) return `This product is not known yet. ${guess(answer)}`;
  const cost = answer.price === "N/A" ? "has no price yet" : `costs ${answer.price} dollars`;
  return `${labelOf(answer)} ${cost}. ${sureness(answer.score)}, ${percent(answer.score)}.`;
}

function sureness(score) {
  if (score >= 0.9) return "Sure";
  return score >= 0.75 ? "Fairly sure" : "Not quite sure";
}

function guess(answer) {
  return answer.guess && answer.guess !== answer.item
    ? `Perhaps ${pretty(answer.guess_label, answer.guess)} (${percent(answer.score)}).` : "";
}

/** The card: photo, label, price, confidence, and whatever else is given. */
export function card(answer, thumb, ...more) {
  const known = isKnown(answer);
  const priced = known && answer.price !== "N/A";
  const price = el("p", { class: priced ? "price" : "price words", id: "price" });
  if (priced) price.append(el("span", { class: "currency" }, "$"), answer.price);
  else price.append(priceText(answer));
  const text = el("div", { class: "what" }, el("p", { class: "label", id: "label" }, known ? labelOf(answer) : "This product is"), price);
  const details = el("div", { class: "more" }, known ? confidence(answer.score) : el("p", { class: "soft" },
    guess(answer), " Tell us what it is: after a few photos the shop knows it."), ...more,
  el("button", { class: "link small", type: "button", "aria-haspopup": "dialog", onclick: () => tellOfModel(answer) },
    `${answer.model}, version ${answer.version}`));
  return el("article", { class: `card answer${known ? "" : " unknown"}` }, picture(thumb, { alt: "Your photo" }), text, details);
}

async function tellOfModel(answer) {
  const { openModels } = await import("./models.js");
  openModels(answer);
}

function confidence(score) {
  const bar = el("span");
  requestAnimationFrame(() => requestAnimationFrame(() => { bar.style.transform = `scaleX(${score})`; }));
  const meter = el("div", {
    class: "meter", role: "meter", "aria-label": "Confidence", "aria-valuemin": 0, "aria-valuemax": 100,
    "aria-valuenow": Math.round(score * 100),
  }, bar);
  return el("div", { class: "confidence" }, el("span", {}, sureness(score)), meter, el("span", { id: "percent" }, percent(score)));
}
