// How long the models take to answer: the median, and what the slowest wait.
import { chart } from "./chart.js";
import { $ } from "./dom.js";
import { percentile, reach } from "./series.js";
import { span } from "./words.js";

const PERCENTILES = [["median", 2, "s0"], ["90 %", 3, "s1"], ["99 %", 4, "s3"]];

export function showLatency({ cameras }, now) {
  const all = [...cameras.values()];
  const lines = PERCENTILES.map(([name, index, style]) => ({ name, points: percentile(all, index, now), style }));
  const words = lines.map(({ name, points }) => `${name} ${span(points.findLast(Boolean)?.[1] ?? 0)}`);
  chart($("latency"), { lines, format: span, seconds: reach(all), now, label: `Answer time of the models: ${words.join(", ")}.` });
}
