// Scan: a photo in, its price out. The newest photo wins; without a network it waits in the outbox.
import { Away, newKey } from "./api.js";
import { ask } from "./ask.js";
import { card, isKnown, spoken } from "./answer.js";
import * as camera from "./camera.js";
import { $, el, icon, say, toast } from "./dom.js";
import { thumbnail } from "./photo.js";

// Not needed before the first photo; the page brings it here at its start, right after what can be seen.
const outbox = () => import("./outbox.js");

let latest = 0; // only the answer to the newest photo is shown
let shown = null; // {key, photo, thumb, answer} of the card
let facts = {};

export function begin(appFacts) {
  facts = appFacts;
}

export const shoot = () => camera.shutter(() => look(camera.snap));

/** A file that was chosen, dropped or pasted. */
export const takeFiles = ([file]) => look(() => camera.load(file));

async function look(take) {
  const number = ++latest;
  const newest = () => number === latest;
  $("camera").classList.add("busy");
  try {
    const photo = await take();
    const entry = { key: newKey(), at: Date.now(), kind: "scan", photo, thumb: await thumbnail(photo) };
    const answer = await answerOrKeep(entry);
    if (newest()) {
      if (answer) showAnswer({ ...entry, answer });
      else showKept();
    }
    if (answer) await (await outbox()).remember({ ...entry, answer });
  } catch (error) {
    if (newest()) showTrouble(error, take);
  } finally {
    if (newest()) $("camera").classList.remove("busy");
  }
}

/** The answer; null where nobody gives one now, and the photo waits in the outbox. */
async function answerOrKeep(entry) {
  try {
    return await ask(entry.photo, { mqtt: facts.mqtt, key: entry.key });
  } catch (error) {
    if (!(error instanceof Away)) throw error;
    const { add, wakeLater } = await outbox();
    await add(entry);
    await wakeLater();
    return null;
  }
}

function showAnswer(entry, note) {
  const tell = el("button", { id: "not-this", class: isKnown(entry.answer) ? "button" : "button primary", type: "button", onclick: () => correct(entry) },
    isKnown(entry.answer) ? "Not this? Tell us" : "Tell us what it is");
  put(card(entry.answer, entry.thumb, note ? el("p", {}, note) : null, el("div", { class: "row" }, tell)), entry);
  say(spoken(entry.answer));
}

async function correct(entry) {
  const { openTell } = await import("./tell.js");
  openTell(entry);
}

function showKept() {
  const text = "No network just now. The photo is kept on this device and sent as soon as there is one; the answer lands in History.";
  put(el("div", { class: "card stack", id: "kept" }, el("h3", {}, "Kept for later"), el("p", {}, text)));
  say(text);
}

function showTrouble(error, take) {
  const again = el("button", { class: "button", type: "button", onclick: () => look(take) }, "Try again");
  put(el("div", { class: "card trouble", id: "trouble", role: "alert" }, icon("warning"), el("p", {}, error.message),
    el("div", { class: "row" }, again)));
}

function put(content, entry = null) {
  shown = entry;
  $("how").hidden = true;
  $("result").replaceChildren(content);
}

/** What was not known may be known to a new version: look again at the photo that is on the screen. */
export async function lookAgain() {
  if (!shown || isKnown(shown.answer)) return;
  const entry = shown;
  try {
    const answer = await ask(entry.photo, { mqtt: facts.mqtt, key: newKey() });
    if (shown !== entry) return;
    showAnswer({ ...entry, answer }, isKnown(answer) ? `Learnt: version ${answer.version} knows it.` : null);
    await (await outbox()).remember({ ...entry, answer });
  } catch {
    toast("A new version serves. Scan it again.");
  }
}
