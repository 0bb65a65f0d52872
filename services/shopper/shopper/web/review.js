// Review: what the shop did not know, or was unsure of. People say what it shows, many photos at once.
import { call } from "./api.js";
import { $, dialog, el, icon, pretty, say, toast } from "./dom.js";
import { picker } from "./picker.js";
import { products } from "./products.js";
import * as desk from "./review-desk.js";
import { Grid } from "./review-grid.js";
import { trainingCard } from "./training.js";

const KEYS = "Arrows move · Space chooses · A all · 1–9 says what it is · G as guessed · Delete no product · Z larger · U undo";
const BLIND = {
  audit: "A spot check: an answer drawn by chance. What the shop said is not shown, so that it does not lead you; your word tells how often the shop is right.",
  drift: "The shop's answers look unlike those before, and this photo is one that shows it. What the shop said is not shown; your word tells what has changed.",
  differing: "Two versions of the model are sure, and not of the same. Both answers are shown; your word tells which version is right.",
};
const FEW = 12; // when so few are left, the next come by themselves

let list = []; // the products, in the order of the keys 1 to 9

const style = el("link", { rel: "stylesheet", href: "review.css" });
const styled = new Promise((resolve) => { style.onload = style.onerror = resolve; });
document.head.append(style);

const count = el("p", { class: "soft grow", role: "status" });
const filter = el("select", { "aria-label": "Show", onchange: () => grid.filter(filter.value) });
const all = el("button", { class: "button", type: "button", onclick: () => grid.chooseAll() }, "Choose all");
const again = el("button", { class: "icon-button", type: "button", "aria-label": "Look again", onclick: () => reload() }, icon("again"));
const tally = el("p", { class: "tally" });
const training = trainingCard(tally, { before: () => desk.settle(), after: showTally });
const body = el("div", { class: "stack" });
const more = el("button", { class: "button more", type: "button", hidden: true, onclick: () => fetchMore() }, "Show more");
const bar = el("div", { class: "decide", role: "toolbar", "aria-label": "What is it?", hidden: true });
const grid = new Grid({ onchoice: showBar, onkey: pressed, onlook: look });

$("review").append(
  el("div", { class: "row head" }, el("h2", { id: "review-title" }, "Review"), count, again),
  el("div", { class: "columns" },
    el("div", { class: "stack" }, el("div", { class: "row tools" }, filter, all), body, more, el("p", { class: "soft small keys" }, KEYS)),
    training.element),
  bar,
);

export async function enter() {
  await styled;
  await Promise.all([reload(), showTally()]);
}

export const leave = () => desk.settle();

async function reload() {
  await desk.settle();
  desk.forget();
  grid.clear();
  body.replaceChildren(el("p", { class: "soft" }, "Looking for photos…"));
  try {
    list = await products();
    await fetchMore();
  } catch (error) {
    trouble(error);
  }
}

async function fetchMore() {
  more.disabled = true;
  try {
    grid.add(await desk.more());
    show();
  } catch (error) {
    if (grid.size) toast(error.message);
    else trouble(error);
  } finally {
    more.disabled = false;
  }
}

function show() {
  const guesses = new Map(grid.all().filter(({ guess }) => guess).map((each) => [each.guess, named(each)]));
  const before = filter.value;
  filter.replaceChildren(el("option", { value: "" }, "All photos"), ...[...guesses].map(([guess, name]) => el("option", { value: guess }, name)));
  filter.value = guesses.has(before) ? before : "";
  grid.filter(filter.value);
  count.textContent = grid.size ? `${grid.size}${desk.isMore() ? " or more" : ""} to look at` : "";
  for (const each of [filter, all]) each.disabled = !grid.size;
  more.hidden = !desk.isMore();
  if (grid.size) {
    if (!body.contains(grid.element)) body.replaceChildren(grid.element);
  } else if (!desk.isMore()) body.replaceChildren(empty());
  showBar();
}

const named = ({ guess, guess_label: label }) => `${pretty(label, guess)}?`;

const empty = () => el("div", { class: "empty" }, icon("review"), el("h3", {}, "Nothing to review"),
  el("p", { class: "soft" }, "Photos that the shop does not know, or is unsure of, and a few spot checks wait here for a word from you. Each one teaches it."));

function trouble(error) {
  const retry = el("button", { class: "button", type: "button", onclick: () => reload() }, "Try again");
  body.replaceChildren(el("div", { class: "card trouble", role: "alert" }, icon("warning"), el("p", {}, error.message), el("div", { class: "row" }, retry)));
}

async function showTally() {
  try {
    const { images } = await call("ingestion/counts");
    tally.replaceChildren(el("span", { class: "big" }, String(images)), el("span", {}, images === 1 ? "photo waits for training" : "photos wait for training"));
  } catch {
    tally.textContent = "How many photos wait for training is not known just now.";
  }
}

// --- deciding -------------------------------------------------------------------------------------

function showBar() {
  const chosen = grid.chosen();
  bar.hidden = !chosen.length;
  all.textContent = chosen.length && chosen.length === grid.seen().length ? "Choose none" : "Choose all";
  if (!chosen.length) return;
  const guessed = chosen.every((each) => each.guess);
  bar.replaceChildren(
    el("p", { class: "number", role: "status" }, `${chosen.length} chosen`),
    guessed ? choice("G", "As guessed", () => asGuessed(), "primary") : "",
    ...list.map((product, index) => choice(index < 9 ? String(index + 1) : "", product.label, () => label(product))),
    choice("", "Something else…", () => typeNew()),
    choice("Del", "No product", () => discard()),
  );
}

function choice(key, text, act, more = "") {
  return el("button", { class: `button ${more}`, type: "button", onclick: act, "aria-keyshortcuts": key || null },
    key ? el("kbd", { "aria-hidden": "true" }, key) : "", text);
}

const label = (product) => carry(product.label, () => ({ product: product.name, new: product.isNew }));
const discard = () => carry("no product", () => ({ discard: true }));
// What the model answers may have no entry in the catalogue: it is a product all the same.
const asGuessed = () => carry("as guessed", ({ guess }) => ({ product: guess, new: true }));

async function carry(what, decide) {
  const images = grid.chosen();
  if (!images.length) return;
  grid.remove(images);
  show();
  const text = `${images.length} ${images.length === 1 ? "photo" : "photos"}: ${what}`;
  say(text);
  const undone = () => { grid.add(images); show(); };
  if (grid.size <= FEW && desk.isMore()) fetchMore();
  try {
    await desk.decide(images.map((each) => ({ image: each.image, ...decide(each) })), text, undone);
    await showTally();
  } catch (error) {
    undone();
    toast(error.message);
  }
}

function typeNew() {
  const choices = picker("What is it?", { onchange: (product) => { save.disabled = !product; } });
  const save = el("button", { class: "button primary save", type: "button", disabled: true, onclick: () => {
    box.close();
    label(choices.value());
    products().then((fresh) => { list = fresh; showBar(); });
  } }, `Teach ${grid.chosen().length}`);
  const box = dialog("What is it?", choices.element, save);
  choices.refresh();
}

function look(each) {
  const said = each.guess ? `${pretty(each.guess_label, each.guess)}, ${Math.round((each.score ?? 0) * 100)} %` : "no opinion";
  const model = each.model ? ` (${each.model}, version ${each.version})` : "";
  dialog(new Date(each.at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }),
    el("img", { class: "photo whole", src: `${desk.address(each.image)}?whole=true`, alt: "The photo" }),
    el("p", {}, BLIND[each.why] ?? `${each.why === "unknown" ? "Not known." : "Known, but not for sure."} The model said: ${said}${model}.`),
    each.camera ? el("p", { class: "soft" }, `From ${each.camera}`) : "");
}

function pressed(key, at) {
  if (/^[1-9]$/.test(key) && list[key - 1]) label(list[key - 1]);
  else if (key === "g" && grid.chosen().every((each) => each.guess)) asGuessed();
  else if (key === "Delete" || key === "Backspace") discard();
  else if (key === "z" && at) look(at);
  else if (key === "u") desk.undo();
  else return false;
  return true;
}

window.addEventListener("pagehide", () => desk.settle({ keepalive: true }));
