// The start: who asks, which view, what the controls of the stage do in it.
import { call } from "./api.js";
import * as camera from "./camera.js";
import { $, toast } from "./dom.js";

const READY_EVERY_MS = 15000;
const NEWS_MS = 12000;
const FACTS = "caravan-app";
const TITLES = { scan: "What does it cost?", teach: "Teach", history: "History", review: "Review" };

let facts = {};
let view = "scan";
let install = null; // the browser's offer to install the app
let newsUntil = 0;

async function learnFacts() {
  try {
    facts = await call("app.json");
    localStorage.setItem(FACTS, JSON.stringify(facts));
  } catch {
    facts = JSON.parse(localStorage.getItem(FACTS) ?? "{}"); // no network: what was true last
    return;
  }
  if (facts.access.needed && !facts.access.holder) location.replace("login");
}

// --- views ---------------------------------------------------------------------------------------

/** The module of a view, fetched when it is first asked for. */
const moduleOf = (name) => import(`./${name}.js`);

async function route() {
  const [, name, wanted] = location.hash.match(/^#(scan|teach|history|review)(?:=(.*))?$/) ?? [null, "scan"];
  const before = view;
  view = name;
  $("main").dataset.view = name;
  for (const link of document.querySelectorAll(".tabs a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `Caravan · ${TITLES[name]}`;
  if (before !== name) {
    scrollTo(0, 0);
    (await moduleOf(before)).leave?.();
  }
  const { enter } = await moduleOf(name);
  if (view === name) await enter?.(wanted && decodeURIComponent(wanted), facts);
}

// --- the stage -----------------------------------------------------------------------------------

const act = async (what, ...values) => (await moduleOf(view))[what]?.(...values);

$("start").addEventListener("click", async () => {
  if (await camera.start()) $("shutter").focus({ preventScroll: true });
});
$("shutter").addEventListener("click", () => act("shoot"));
$("burst").addEventListener("click", () => act("burst"));
$("undo").addEventListener("click", () => act("undo"));
$("file").addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = ""; // the same file may be chosen again
  if (files.length) act("takeFiles", files);
});

const images = (transfer) => [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));

for (const type of ["dragenter", "dragover"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    $("camera").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget || $("camera").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("camera").classList.remove("over");
  const files = images(event.dataTransfer);
  if (files.length) act("takeFiles", files);
  else toast("That is no photo. Drop a JPEG, PNG or WebP file.");
});
document.addEventListener("paste", (event) => {
  const files = images(event.clipboardData);
  if (files.length) act("takeFiles", files);
});

// --- the line at the top -------------------------------------------------------------------------

function state(kind, text) {
  $("state").className = `state ${kind}`;
  if ($("state").textContent !== text) $("state").textContent = text;
}

async function lookReady() {
  if (Date.now() < newsUntil) return;
  if (!navigator.onLine) return state("no", "offline");
  try {
    const { ready, checks } = await (await fetch("readyz", { signal: AbortSignal.timeout(8000) })).json();
    const away = Object.keys(checks).filter((name) => checks[name] !== "ok");
    state(ready ? "yes" : "no", ready ? "ready" : `waiting for ${away.join(", ")}`);
  } catch {
    state("no", "no connection");
  }
}

async function hear({ detail }) {
  newsUntil = Date.now() + NEWS_MS;
  state(detail.bad ? "no" : detail.done ? "yes" : "busy", detail.text);
  if (!detail.done) return;
  toast(detail.text);
  (await moduleOf("scan")).lookAgain();
}

// --- the installed app ---------------------------------------------------------------------------

async function installWorker() {
  if (!navigator.serviceWorker) return;
  const registration = await navigator.serviceWorker.register("sw.js", { type: "module", updateViaCache: "none" });
  const offer = (worker) => worker && toast("A new version of this app is here.", { label: "Reload", act: () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    worker.postMessage("take over");
  } });
  if (registration.waiting && navigator.serviceWorker.controller) offer(registration.waiting);
  registration.addEventListener("updatefound", () => {
    const worker = registration.installing;
    worker.addEventListener("statechange", () => {
      if (worker.state === "installed" && navigator.serviceWorker.controller) offer(worker);
    });
  });
}

window.addEventListener("beforeinstallprompt", (event) => {
  event.preventDefault();
  install = event;
});

$("open-settings").addEventListener("click", async () => (await import("./settings.js")).openSettings(facts, install));
window.addEventListener("hashchange", route);
for (const type of ["online", "offline"]) window.addEventListener(type, lookReady);

route();
lookReady();
setInterval(() => document.hidden || lookReady(), READY_EVERY_MS);
performance.mark("interactive"); // what follows waits for the network
await learnFacts();
(await moduleOf("scan")).begin(facts);
if (!facts.access?.needed || facts.access.holder) {
  const [courier, { listen, news }] = await Promise.all([import("./courier.js"), import("./news.js")]);
  courier.begin();
  news.addEventListener("news", hear);
  listen();
  camera.resume();
  installWorker().catch(() => {}); // without it the app works, but not offline
}
document.documentElement.dataset.ready = "";
