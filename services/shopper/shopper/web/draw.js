// Draw a digit: the drawing becomes what the data set holds, the model says how likely each digit is.
import { Refused, postJson } from "./api.js";
import { blocks } from "./digit.js";
import { SIDE, picture, png } from "./digit-png.js";
import { $, el, icon, percent, say } from "./dom.js";
import { latest } from "./latest.js";
import { paper } from "./pen.js";

const PAUSE_MS = 200;
const CLASSES = 100; // of a reply: a model may know teas beside the digits
const DIGITS = [..."0123456789"];
const model = new URLSearchParams(location.search).get("model") ?? "";

let drawing = [];

const sheet = paper($("paper"), (strokes) => {
  drawing = strokes;
  for (const id of ["undo", "clear", "ask"]) $(id).disabled = !strokes.length;
  $("hint").hidden = strokes.length > 0;
  $("paper").setAttribute("aria-label", `Paper to draw a digit on, by finger, mouse or pen. ${counted(strokes.length)}.`);
  if (strokes.length) return want(strokes);
  want(null);
  empty();
});

const counted = (count) => (count === 0 ? "Empty" : `${count} ${count === 1 ? "stroke" : "strokes"}`);

const busy = (yes) => $("answer").setAttribute("aria-busy", yes);

const ask = latest(async (strokes) => {
  const pixels = picture(blocks(strokes));
  const query = new URLSearchParams({ top: CLASSES, ...(model && { model }) });
  showSeen(pixels);
  return postJson(`detection?${query}`, { image: base64(png(pixels)) }, { camera: "draw" });
}, (answer, error) => {
  busy(false);
  const trouble = error ? troubleOf(error) : unfit(answer);
  $("trouble").replaceChildren(trouble ?? "");
  if (trouble) showNothing("No answer");
  else show(answer);
}, PAUSE_MS);

function want(strokes) {
  busy(strokes !== null);
  ask(strokes);
}

const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

// --- the answer ----------------------------------------------------------------------------------

function show({ known, item, guess, label, guess_label: guessLabel, model: name, version, ...answer }) {
  const shares = DIGITS.map((digit) => probabilities(answer, guess ?? item)[digit] ?? 0);
  const best = shares.indexOf(Math.max(...shares));
  const seen = guess ?? item;
  const sure = known === "true" && seen === DIGITS[best];
  const words = wordsFor(seen, guessLabel ?? label, sure, percent(shares[best]));
  $("digit").textContent = sure ? best : seen === DIGITS[best] ? `${best}?` : "?";
  $("digit").classList.toggle("unsure", !sure);
  $("words").textContent = words;
  $("facts").textContent = `${name}, version ${version}`;
  shares.forEach((share, digit) => showBar(digit, share, digit === best));
  say(words);
}

function wordsFor(seen, label, sure, share) {
  if (seen === "other") return "The model sees no digit in this.";
  if (!DIGITS.includes(seen)) return `The model takes it for ${label}.`;
  return sure ? `A ${seen}, and it is ${share} sure.` : `Not sure. Perhaps a ${seen}: ${share}.`;
}

/** Of each class; a model that names its first choice alone has said that much. */
const probabilities = ({ probabilities: all, score }, first) => (Object.keys(all).length ? all : { [first]: score });

function showBar(digit, share, most) {
  const line = $("bars").children[digit];
  line.classList.toggle("most", most);
  line.querySelector(".bar").style.transform = `scaleY(${share})`;
  line.querySelector(".share").textContent = share >= 0.005 ? percent(share) : "";
  line.setAttribute("aria-label", `${digit}: ${percent(share)}`);
}

function showNothing(words) {
  $("digit").textContent = "–";
  $("digit").classList.add("unsure");
  $("words").textContent = words;
  $("facts").textContent = "";
  DIGITS.forEach((_, digit) => showBar(digit, 0, false));
}

function empty() {
  $("trouble").replaceChildren();
  showSeen(new Uint8Array(SIDE * SIDE).fill(255));
  showNothing("Draw, and the model says what it sees.");
}

function showSeen(pixels) {
  const image = new ImageData(SIDE, SIDE);
  pixels.forEach((grey, i) => image.data.set([grey, grey, grey, 255], 4 * i));
  $("seen").getContext("2d").putImageData(image, 0, 0);
}

// --- trouble, in words ---------------------------------------------------------------------------

function unfit({ item, guess, model: name, ...answer }) {
  const classes = Object.keys(probabilities(answer, guess ?? item));
  if (classes.some((one) => DIGITS.includes(one))) return null;
  const known = classes.filter((one) => one !== "other");
  return card(`The model ${name} knows no digits.`,
    el("p", {}, `It tells ${known.slice(0, 5).join(", ") || "other things"} apart. Teach it digits as well:`), ...howTo(),
    el("p", {}, "Or name another model in the address of this page: ", el("code", {}, "draw?model=NAME"), "."));
}

function troubleOf(error) {
  if (!(error instanceof Refused)) return card(error.message, el("p", {}, "Your drawing stays. Press Ask when it is back."));
  if (error.status === 404) return card(`This shop has no model ${model}.`, el("p", {}, "Draw without naming one: ", el("a", { href: "draw" }, "ask the shop's own model"), "."));
  if (error.status === 503) return card(error.message, el("p", {}, "If this shop has no model yet, teach it digits:"), ...howTo());
  return card(error.message);
}

const howTo = () => [
  el("pre", {}, "make digits.zip\ncurl -T digits.zip 'http://localhost:8081/zip?edgeId=edge1'"),
  el("p", { class: "soft small" }, "On the machine where Caravan runs, with this shop's edge in place of edge1. A minute later the model knows them; then press Ask."),
];

const card = (title, ...more) =>
  el("div", { class: "card trouble" }, icon("warning"), el("div", { class: "stack" }, el("h3", {}, title), ...more));

// --- controls ------------------------------------------------------------------------------------

const again = () => drawing.length && want(drawing);

$("undo").addEventListener("click", sheet.undo);
$("clear").addEventListener("click", sheet.clear);
$("ask").addEventListener("click", again);
window.addEventListener("online", again);
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.metaKey || event.repeat) return;
  if (event.key === "Backspace" || (event.ctrlKey && event.key === "z")) sheet.undo();
  else if (event.key === "Delete") sheet.clear();
  else if (event.key === "Enter" && !event.target.closest("a, button")) again();
  else return;
  event.preventDefault();
});

$("bars").append(...DIGITS.map((digit) => el("li", {},
  el("span", { class: "share" }), el("span", { class: "track" }, el("span", { class: "bar" })), el("b", {}, digit))));
empty();
document.documentElement.dataset.ready = "";
