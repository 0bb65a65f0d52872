// The batches of an edge that are not learnt from until a person decides, each with its pictures.
import { el } from "./dom.js";
import { time } from "./words.js";

/** What waits at an edge; nothing where nothing does. */
export function waitingBatches({ waiting, waiting_fault: fault }) {
  const parts = fault ? [el("p", { class: "bad small" }, `The quarantine cannot be listed: ${fault}`)] : [];
  const { count, batches } = waiting;
  if (!count) return parts;
  parts.push(el("section", { class: "waiting", "aria-label": "Waiting for a person" },
    el("p", { class: "bad" }, count === 1 ? "1 batch waits for a person" : `${count} batches wait for a person${count > batches.length ? `; the oldest ${batches.length}` : ""}`),
    el("ul", {}, ...batches.map(batch)),
    el("p", { class: "soft" }, "Nothing is learnt from the photos in quarantine. ", el("code", {}, "caravan quarantine release"), " if the labels are right, ", el("code", {}, "caravan withdraw"), " if they are wrong.")));
  return parts;
}

const batch = ({ batch: id, reason, at, page }) => el("li", {}, `${reason} · `, el("a", { href: page, title: `batch ${id}` }, "see the pictures"), el("span", { class: "soft" }, ` since ${time(at)}`));
