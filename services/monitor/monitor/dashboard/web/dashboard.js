// The page: what it is told goes to those who show it.
import { showAccounts } from "./account.js";
import { showCameras } from "./cameras.js";
import { showClasses } from "./classes.js";
import { $ } from "./dom.js";
import { showEdges } from "./edges.js";
import { connect, now, state } from "./feed.js";
import { drawFlow } from "./flow.js";
import { showLatency } from "./latency.js";
import { showLetters } from "./letters.js";
import { showLog } from "./log.js";
import { showSpeed } from "./speed.js";
import { showUncertain } from "./uncertain.js";
import { number } from "./words.js";

const flow = drawFlow($("flow"));
const AGAIN_MS = 5000;

// Which parts of the state each view shows: it is drawn again when one of them changes.
const VIEWS = [
  [["edges", "hub"], () => flow.show(state)],
  [["edges"], () => showEdges(state.edges)],
  [["log"], () => showLog(state.log)],
  [["cameras", "time"], () => showSpeed(state, now())],
  [["cameras", "time"], () => showLatency(state, now())],
  [["cameras"], () => showClasses(state)],
  [["cameras", "hub"], () => showCameras(state)],
  [["uncertain"], () => showUncertain(state.uncertain)],
  [["letters"], () => showLetters(state.letters)],
  [["edges"], () => showAccounts(state.edges)],
  [["hub", "edges"], summary],
];

const stale = new Set();

function onChange(parts) {
  parts.forEach((part) => stale.add(part));
  requestAnimationFrame(draw);
}

// Lines move on with the time, and fit their place, also where nothing comes.
setInterval(() => onChange(["time"]), AGAIN_MS);
addEventListener("resize", () => onChange(["time"]));

connect({
  onChange,
  onFlow: (counts) => flow.count(counts),
  onState(text, kind) {
    $("state").textContent = text;
    $("state").className = `state ${kind}`;
    document.documentElement.toggleAttribute("data-live", kind === "yes");
  },
  onHolder(holder) {
    $("sign-out").hidden = false;
    $("sign-out").title = `Signed in as ${holder}`;
  },
});

$("sign-out").addEventListener("click", async () => {
  await fetch("logout", { method: "POST" });
  location.assign("login");
});

function draw() {
  if (!stale.size) return;
  const parts = new Set(stale);
  stale.clear();
  for (const [needs, show] of VIEWS) if (needs.some((need) => parts.has(need))) show();
}

function summary() {
  const edges = Object.values(state.hub.edges ?? {});
  const rate = edges.reduce((sum, edge) => sum + edge.images_per_second, 0);
  const cameras = state.hub.cameras ?? 0;
  $("summary").textContent = [
    `${state.edges.size} ${state.edges.size === 1 ? "edge" : "edges"}`,
    `${cameras} ${cameras === 1 ? "camera" : "cameras"}`,
    `${number(rate)} images/s`,
  ].join(" · ");
}
