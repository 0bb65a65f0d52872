// What happens at the edge, as the shopper tells it: training, new versions. One stream for the whole page.
import { percent } from "./dom.js";

const NAMES = ["pipeline", "training", "model-ready", "model-rejected", "pushmodel"];

export const news = new EventTarget();

let latest = null;

/** The last thing that happened, in words: {name, text, share, version}. */
export const latestNews = () => latest;

export function listen() {
  const source = new EventSource(`events?names=${NAMES.join(",")}`);
  source.onmessage = ({ data }) => tell(JSON.parse(data));
}

function tell(event) {
  latest = { ...event, ...inWords(event) };
  news.dispatchEvent(new CustomEvent("news", { detail: latest }));
}

function inWords({ name, stage, progress, version, reason, files }) {
  switch (name) {
    case "pipeline": return { text: `${files} photos arrived. Training starts…`, share: 0.02 };
    case "training":
      if (stage === "failed") return { text: `Training failed: ${reason}`, share: null, bad: true };
      return { text: `Training… ${percent(progress)}`, share: progress };
    case "model-ready": return { text: `Version ${version} is trained and on its way to this shop…`, share: 1 };
    case "model-rejected": return { text: `No new version: ${reason}`, share: null, bad: true };
    default: return { text: `Version ${version} serves now.`, share: 1, done: true };
  }
}
