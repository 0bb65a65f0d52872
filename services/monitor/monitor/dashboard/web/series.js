// Windows of many cameras, put together over time. Pure.
const SHORTEST_MS = 10_000;
const MOST_STEPS = 25;

/** Sum windows by the step that they ended in, as long as the longest window: {ms, steps: [[ms, windows]…]} up to `now`. */
function steps(cameras, now) {
  const ms = Math.max(SHORTEST_MS, ...cameras.map((camera) => camera.window_seconds * 1000));
  const found = new Map();
  for (const camera of cameras) {
    for (const [end, ...facts] of camera.windows) {
      const step = Math.round(new Date(end).getTime() / ms) * ms;
      if (step <= now - MOST_STEPS * ms) continue;
      if (!found.has(step)) found.set(step, []);
      found.get(step).push(facts);
    }
  }
  const [first, last] = [Math.min(...found.keys()), Math.max(...found.keys())];
  const all = [];
  for (let step = first; step <= last; step += ms) all.push([step, found.get(step) ?? []]);
  return { ms, all };
}

/** How far back the lines reach, in seconds. */
export const reach = (cameras) => (MOST_STEPS * Math.max(SHORTEST_MS, ...cameras.map((camera) => camera.window_seconds * 1000))) / 1000;

/** Images a second in each step; none is nothing seen, which is 0. */
export function rates(cameras, now) {
  const { ms, all } = steps(cameras, now);
  return all.map(([step, windows]) => [step, windows.reduce((sum, [images]) => sum + images, 0) / (ms / 1000)]);
}

/** A percentile over all windows of each step: the mean, weighed by images; null where there were none. */
export const percentile = (cameras, index, now) =>
  steps(cameras, now).all.map(([step, windows]) => {
    const images = windows.reduce((sum, [count]) => sum + count, 0);
    return images ? [step, windows.reduce((sum, facts) => sum + facts[index] * facts[0], 0) / images] : null;
  });
