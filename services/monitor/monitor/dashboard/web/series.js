// Windows of many cameras, put together over time. Pure.
const STEP_MS = 10_000;
export const SECONDS = 250;

/** Sum windows by the ten seconds that they ended in: [[ms, …]…] sorted, windows by their end. */
export function steps(cameras) {
  const found = new Map();
  for (const camera of cameras) {
    for (const [end, ...facts] of camera.windows) {
      const step = Math.round(new Date(end).getTime() / STEP_MS) * STEP_MS;
      if (!found.has(step)) found.set(step, []);
      found.get(step).push(facts);
    }
  }
  if (!found.size) return [];
  const last = Math.max(...found.keys());
  const first = Math.max(Math.min(...found.keys()), last - SECONDS * 1000);
  const all = [];
  for (let step = first; step <= last; step += STEP_MS) all.push([step, found.get(step) ?? []]);
  return all;
}

/** Images a second in each step; none is nothing seen, which is 0. */
export const rates = (cameras) =>
  steps(cameras).map(([step, windows]) => [step, windows.reduce((sum, [images]) => sum + images, 0) / (STEP_MS / 1000)]);

/** A percentile over all windows of each step: the mean, weighed by images; null where there were none. */
export const percentile = (cameras, index) =>
  steps(cameras).map(([step, windows]) => {
    const images = windows.reduce((sum, [count]) => sum + count, 0);
    return images ? [step, windows.reduce((sum, facts) => sum + facts[index] * facts[0], 0) / images] : null;
  });
