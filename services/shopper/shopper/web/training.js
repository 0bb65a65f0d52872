// "Send to training", and what becomes of it: one card in each view that teaches.
import { call } from "./api.js";
import { el, icon } from "./dom.js";
import { openModels } from "./models.js";
import { latestNews, news } from "./news.js";

/** Make a card below `head`; `before(tell)` brings here what is still on its way, `after()` hears of the end. */
export function trainingCard(head, { before = async () => {}, after = async () => {} } = {}) {
  const send = el("button", { class: "button primary train", type: "button", onclick: start }, icon("send"), "Send to training");
  const outcome = el("p", { class: "sent", role: "status" });
  const bar = el("span");
  const meter = el("div", { class: "meter", role: "progressbar", "aria-label": "Training", "aria-valuemin": 0, "aria-valuemax": 100, hidden: true }, bar);
  const told = el("p", { class: "told", role: "status" });
  const element = el("div", { class: "card stack" }, head, send, outcome, el("div", { class: "progress" }, meter, told));

  function tell(text, bad = false) {
    outcome.classList.toggle("error", bad);
    outcome.textContent = text;
  }

  async function start() {
    send.disabled = true;
    try {
      await before(tell);
      tell("Sending them to training…");
      tell(inWords(await call("zip", { method: "POST" })));
    } catch (error) {
      tell(error.message, true);
    } finally {
      send.disabled = false;
      await after();
    }
  }

  function show(item) {
    if (!item) return;
    told.replaceChildren(item.text);
    if (item.done) told.append(" Scan it again: no need to reload. ",
      el("button", { class: "link", type: "button", onclick: () => openModels() }, "How well has it learnt?"));
    told.classList.toggle("error", Boolean(item.bad));
    meter.hidden = item.share === null;
    if (item.share === null) return;
    meter.setAttribute("aria-valuenow", Math.round(item.share * 100));
    bar.style.transform = `scaleX(${item.share})`;
  }

  show(latestNews());
  news.addEventListener("news", ({ detail }) => show(detail));
  return { element, allow: (may) => { send.disabled = !may; } };
}

function inWords({ status, files, stored, duplicates, rejected, warnings = [] }) {
  if (status === "empty") return "There is nothing to send yet: take some photos first.";
  if (status === "queued") return "The way to the centre is interrupted. The photos are safe and follow by themselves.";
  const refused = rejected.length ? `, ${rejected.length} refused: ${rejected[0].reason}` : "";
  const better = warnings.map((warning) => ` But ${warning}.`).join("");
  return `${files} ${files === 1 ? "photo" : "photos"} sent: ${stored} new, ${duplicates} known already${refused}.${better}`;
}
