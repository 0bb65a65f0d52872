// How many images of each class, certain and uncertain; of all cameras or of one.
import { $, el } from "./dom.js";
import { number } from "./words.js";
import { state } from "./feed.js";

const ALL = "";
$("camera").addEventListener("change", () => showClasses(state));

export function showClasses({ cameras }) {
  choose(cameras);
  const chosen = $("camera").value;
  const counts = new Map();
  for (const [name, { totals }] of cameras) {
    if (chosen !== ALL && name !== chosen) continue;
    for (const [kind, index] of [["certain", 0], ["uncertain", 1]]) {
      for (const [item, count] of Object.entries(totals[kind])) {
        if (!counts.has(item)) counts.set(item, [0, 0]);
        counts.get(item)[index] += count;
      }
    }
  }
  const rows = [...counts].map(([item, [certain, unsure]]) => ({ item, certain, unsure, all: certain + unsure })).sort((a, b) => b.all - a.all);
  if (!rows.length) {
    $("classes").replaceChildren(el("p", { class: "none" }, "No image has been counted yet."));
    return;
  }
  const most = rows[0].all;
  const keys = el("ul", { class: "keys" }, el("li", {}, el("i"), "certain"), el("li", {}, el("i", { class: "unsure" }), "uncertain"));
  const head = el("thead", { class: "unseen" }, el("tr", {}, ...["Class", "Share", "Certain and uncertain"].map((text) => el("th", { scope: "col" }, text))));
  $("classes").replaceChildren(keys, el("table", { class: "bars" }, head, el("tbody", {}, ...rows.map((row) => bar(row, most)))));
}

function bar({ item, certain, unsure, all }, most) {
  const parts = [[certain, ""], [unsure, "unsure"]].filter(([count]) => count).map(([count, kind]) => {
    const part = el("span", { class: kind });
    part.style.flexGrow = count;
    return part;
  });
  const stacked = el("div", { class: "stacked" }, ...parts);
  stacked.style.width = `${(all / most) * 100}%`;
  const words = unsure ? `${number(certain)} + ${number(unsure)}` : number(certain);
  return el("tr", {}, el("th", { scope: "row" }, item), el("td", { class: "wide" }, stacked), el("td", { class: "count" }, words));
}

function choose(cameras) {
  const select = $("camera");
  const names = [ALL, ...[...cameras.keys()].sort()];
  if (select.options.length === names.length && names.every((name, index) => select.options[index].value === name)) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => el("option", { value: name }, name || "all cameras")));
  select.value = names.includes(chosen) ? chosen : ALL;
}
