// Teach: choose a product, take many photos of it, send them to training, and watch what becomes of it.
import { Refused } from "./api.js";
import * as camera from "./camera.js";
import { deliver, deliverAfter } from "./courier.js";
import { $, el, say, toast } from "./dom.js";
import * as outbox from "./outbox.js";
import { thumbnail } from "./photo.js";
import { picker } from "./picker.js";
import { trainingCard } from "./training.js";

const UNDO_MS = 8000;
const BURST_EVERY_MS = 350;
const BURST_MAX = 40;
const COUNT_EVERY_MS = 4000;

const taken = []; // keys of photos that can still be taken back
let here = false;
let bursting = false;

const choice = picker("Which product?", { counts: true, onchange: () => showTally() });
const tally = el("div", { class: "tally", "aria-live": "polite" });
const training = trainingCard(tally, { before: bringAll, after: refresh });

$("teach").append(
  el("h2", { id: "teach-title" }, "Teach the shop a product"),
  el("p", { class: "soft" }, "Choose it, then take 15 photos or more, from all sides."),
  choice.element,
  training.element,
);

export async function enter(wanted) {
  here = true;
  await refresh();
  if (wanted) choice.choose(wanted);
}

export function leave() {
  here = false;
  stopBurst();
}

export async function shoot() {
  if (bursting) return stopBurst();
  return camera.shutter(() => takeOne(camera.snap));
}

export async function takeFiles(files) {
  for (const file of files) {
    if (!(await takeOne(() => camera.load(file)))) break;
  }
}

/** Take photos until told again, or until there are many. */
export async function burst() {
  if (bursting) return stopBurst();
  if (!camera.isLive() && !(await camera.start())) return;
  if (!chosen()) return;
  bursting = true;
  $("burst").setAttribute("aria-pressed", "true");
  for (let count = 0; bursting && count < BURST_MAX; count++) {
    const next = performance.now() + BURST_EVERY_MS;
    if (!(await takeOne(camera.snap))) break;
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - performance.now())));
  }
  stopBurst();
}

export async function undo() {
  const key = taken.pop();
  if (key && (await outbox.takeBack(key))) say("The last photo is gone.");
  else toast("It is too late to take that one back: the shop has it.");
  showUndo();
}

function stopBurst() {
  bursting = false;
  $("burst").setAttribute("aria-pressed", "false");
}

function chosen() {
  const product = choice.value();
  if (product) return product;
  toast("Choose the product first, or type a new one.");
  choice.element.querySelector("input")?.focus();
  return null;
}

async function takeOne(take) {
  const product = chosen();
  if (!product) return false;
  try {
    const photo = await take();
    const { key } = await outbox.add({ kind: "teach", photo, thumb: await thumbnail(photo), product: product.name, isNew: product.isNew }, UNDO_MS);
    taken.push(key);
    setTimeout(() => forget(key), UNDO_MS);
  } catch (error) {
    toast(error.message);
    return false;
  }
  showUndo();
  deliverAfter(UNDO_MS + 100);
  return true;
}

function forget(key) {
  const index = taken.indexOf(key);
  if (index >= 0) taken.splice(index, 1);
  showUndo();
}

function showUndo() {
  $("undo").disabled = !taken.length;
  $("undo-count").hidden = !taken.length;
  $("undo-count").textContent = taken.length;
}

async function showTally() {
  const product = choice.value();
  const own = (await outbox.waiting()).filter((entry) => entry.kind === "teach");
  const mine = own.filter((entry) => entry.product === product?.name).length;
  training.allow(!bursting);
  if (!product) {
    tally.replaceChildren(el("p", {}, "No product chosen yet."));
    return;
  }
  const count = product.images + mine;
  tally.replaceChildren(
    el("span", { class: "big", id: "count" }, String(count)),
    el("span", {}, `${count === 1 ? "photo" : "photos"} of ${product.label}`),
    mine ? el("span", { class: "soft" }, `${mine} on their way`) : "",
  );
}

async function refresh() {
  await choice.refresh();
  await showTally();
}

/** Everything that is still in the browser goes to the shop first. */
async function bringAll(tell) {
  stopBurst();
  tell("Bringing the photos to the shop…");
  taken.length = 0;
  showUndo();
  const { left, trouble } = await deliver({ all: true });
  if (left) throw trouble ?? new Refused(0, `${left} photos are still here. Try again.`);
}

outbox.onChange(() => here && showTally());
setInterval(() => here && !document.hidden && !bursting && refresh(), COUNT_EVERY_MS);
