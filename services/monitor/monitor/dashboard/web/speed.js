// Images a second, of each edge, over the last minutes.
import { chart } from "./chart.js";
import { $ } from "./dom.js";
import { rates, reach } from "./series.js";
import { number } from "./words.js";

const STYLES = ["s0", "s1", "s2", "s3"];

export function showSpeed({ cameras }, now) {
  const all = [...cameras.values()];
  const edges = [...new Set(all.map(({ edge }) => edge))].sort();
  const shown = edges.length > STYLES.length ? [["all edges", all]] : edges.map((edge) => [edge, all.filter((one) => one.edge === edge)]);
  const lines = shown.map(([name, some], index) => ({ name, points: rates(some, now), style: STYLES[index] }));
  const words = lines.map(({ name, points }) => `${name}: ${number(points.at(-1)?.[1] ?? 0)}`);
  chart($("speed"), { lines, format: number, seconds: reach(all), now, label: `Images a second. Now ${words.join(", ")}.` });
}
