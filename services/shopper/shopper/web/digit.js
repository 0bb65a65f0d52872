// Strokes become what the data set of digits holds: 8 x 8 counts of inked pixels, 0..16. Pure.
//
// The originals went through NIST's normalisation (Garris et al. 1994): a bitmap of 32 x 32, the digit stretched
// to 20 x 32 in its middle, strokes thickened or thinned towards the same amount of ink, and slanted until the
// leftmost pixels of the top and the bottom row are above each other; then blocks of 4 x 4 were counted. The
// figures below are those of the data set itself.
export const BLOCKS = 8;
const BLOCK = 4;
const SIDE = BLOCKS * BLOCK;
const WIDTH = 20;
const HEIGHT = 32;
const INKED = 312; // pixels: 30 of 100, in each of the ten classes
const SLENDER = 2; // a plain 1 is no 20 pixels wide: no digit is stretched more than this in one direction
const BISECTIONS = 10;
const MOST_POINTS = 400;

/** Count the ink of strokes: arrays of {x, y}, y downwards, in any unit. Returns 64 numbers, row by row. */
export function blocks(strokes) {
  const ink = upright(bitmap(strokes.filter((stroke) => stroke.length)));
  const counts = new Array(BLOCKS * BLOCKS).fill(0);
  ink.forEach((inked, at) => {
    const row = Math.floor(at / SIDE / BLOCK);
    const column = Math.floor((at % SIDE) / BLOCK);
    counts[row * BLOCKS + column] += inked;
  });
  return counts;
}

/** Draw the strokes into a bitmap, with the pen that leaves the ink wanted. */
function bitmap(strokes) {
  const points = thinned(strokes);
  if (!points.length) return new Uint8Array(SIDE * SIDE);
  let [thin, thick] = [0.5, HEIGHT / 2];
  for (let i = 0; i < BISECTIONS; i += 1) {
    const pen = (thin + thick) / 2;
    const inked = drawn(points, pen).reduce((sum, pixel) => sum + pixel, 0);
    if (inked < INKED) thin = pen;
    else thick = pen;
  }
  return drawn(points, thick);
}

/** Leave out points so that long scribbles cost no more than digits: [[x, y]…] of each stroke. */
function thinned(strokes) {
  const every = Math.ceil(strokes.reduce((sum, stroke) => sum + stroke.length, 0) / MOST_POINTS);
  return strokes.map((stroke) => stroke.filter((_, i) => i % every === 0 || i === stroke.length - 1));
}

/** Draw with a round pen of this radius, in pixels; the digit fills its frame, the pen's width included. */
function drawn(strokes, pen) {
  const place = placing(strokes.flat(), pen);
  const ink = new Uint8Array(SIDE * SIDE);
  for (const stroke of strokes) {
    const points = stroke.map(place);
    points.forEach((point, i) => drawLine(ink, points[Math.max(i - 1, 0)], point, pen));
  }
  return ink;
}

/** Return how a point goes into the frame. */
function placing(points, pen) {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const across = Math.max(WIDTH - 2 * pen, 0) / (right - left || Number.MIN_VALUE);
  const down = Math.max(HEIGHT - 2 * pen, 0) / (bottom - top || Number.MIN_VALUE);
  const [scaleX, scaleY] = [Math.min(across, down * SLENDER), Math.min(down, across * SLENDER)];
  return ({ x, y }) => ({
    x: SIDE / 2 + (x - (left + right) / 2) * scaleX,
    y: SIDE / 2 + (y - (top + bottom) / 2) * scaleY,
  });
}

function drawLine(ink, from, to, pen) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = dx * dx + dy * dy;
  const [firstX, lastX] = span(from.x, to.x, pen);
  const [firstY, lastY] = span(from.y, to.y, pen);
  for (let y = firstY; y <= lastY; y += 1) {
    for (let x = firstX; x <= lastX; x += 1) {
      // The point of the line that is nearest to the pixel's middle.
      const along = length ? Math.min(1, Math.max(0, ((x + 0.5 - from.x) * dx + (y + 0.5 - from.y) * dy) / length)) : 0;
      if (Math.hypot(x + 0.5 - from.x - along * dx, y + 0.5 - from.y - along * dy) <= pen) ink[y * SIDE + x] = 1;
    }
  }
}

const span = (a, b, pen) => [Math.max(0, Math.floor(Math.min(a, b) - pen)), Math.min(SIDE - 1, Math.ceil(Math.max(a, b) + pen))];

/** Shift the rows until the leftmost pixels of the first and the last inked one are above each other. */
function upright(ink) {
  const rows = Array.from({ length: SIDE }, (_, y) => ink.subarray(y * SIDE, (y + 1) * SIDE));
  const lefts = rows.map((row) => row.indexOf(1));
  const first = lefts.findIndex((left) => left >= 0);
  const last = lefts.findLastIndex((left) => left >= 0);
  const straight = new Uint8Array(SIDE * SIDE);
  rows.forEach((row, y) => {
    const share = last > first ? (y - first) / (last - first) - 0.5 : 0;
    const shift = Math.round(share * (lefts[first] - lefts[last]));
    row.forEach((inked, x) => {
      if (inked && x + shift >= 0 && x + shift < SIDE) straight[y * SIDE + x + shift] = 1;
    });
  });
  return straight;
}
