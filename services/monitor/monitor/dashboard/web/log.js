// What happened, in words, the newest first: the drawing's text for who does not see it.
import { $, el } from "./dom.js";
import { time } from "./words.js";

const shown = new Map();

export function showLog(lines) {
  const list = $("log");
  for (const line of lines.values()) {
    const known = shown.get(line.id);
    if (!known) {
      const words = el("p", { class: line.tone || null }, line.text);
      const when = el("time", { datetime: line.at }, time(line.at));
      const item = el("li", {}, when, el("span", { class: "who" }, line.edge), words);
      // The list is turned upside down by its style: the last item is the first on the page.
      list.append(item);
      shown.set(line.id, { item, words, when, text: line.text });
    } else if (known.text !== line.text) {
      known.text = known.words.textContent = line.text;
      known.when.textContent = time(line.at);
    }
  }
  for (const [id, { item }] of shown) {
    if (lines.has(id)) continue;
    item.remove();
    shown.delete(id);
  }
}
