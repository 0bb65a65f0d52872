// The picture of a digit, as `python -m lab samples digits` makes it, to the pixel. Pure.
import { BLOCKS } from "./digit.js";

const MARGIN = 2; // blocks of paper around the ink
const MOST = 16; // inked pixels in a full block
export const SIDE = 96;

/** Enlarge 8 x 8 counts of ink, 0..16, to 96 x 96 grey pixels: dark ink on white paper, bicubic. */
export function picture(ink) {
  const small = BLOCKS + 2 * MARGIN;
  const paper = new Uint8Array(small * small).fill(255);
  ink.forEach((count, at) => {
    const [row, column] = [Math.floor(at / BLOCKS), at % BLOCKS];
    paper[(row + MARGIN) * small + column + MARGIN] = 255 - Math.round((count * 255) / MOST);
  });
  const lines = enlargement(small);
  const wide = apply(lines, small, (x, y) => paper[y * small + x]);
  return apply(lines, SIDE, (y, x) => wide[y * SIDE + x], true);
}

const UNIT = 2 ** 22;

/** Return the weights of Pillow's bicubic enlargement, whole numbers, for each new pixel of a line. */
function enlargement(small) {
  return Array.from({ length: SIDE }, (_, at) => {
    const centre = ((at + 0.5) * small) / SIDE;
    const first = Math.max(0, Math.trunc(centre - 2 + 0.5));
    const last = Math.min(small, Math.trunc(centre + 2 + 0.5));
    const near = Array.from({ length: last - first }, (_, i) => bicubic(first + i - centre + 0.5));
    const sum = near.reduce((total, weight) => total + weight, 0);
    return { first, weights: near.map((weight) => Math.sign(weight) * Math.round(Math.abs((weight / sum) * UNIT))) };
  });
}

/** Keys' cubic convolution, a = -1/2. */
function bicubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** Enlarge each of so many lines; `turned` writes them as columns. */
function apply(weighted, lines, pixel, turned = false) {
  const enlarged = new Uint8ClampedArray(SIDE * lines);
  for (let line = 0; line < lines; line += 1) {
    weighted.forEach(({ first, weights }, at) => {
      const sum = weights.reduce((total, weight, i) => total + weight * pixel(first + i, line), UNIT / 2);
      enlarged[turned ? at * SIDE + line : line * SIDE + at] = Math.floor(sum / UNIT);
    });
  }
  return enlarged;
}

/** Write grey pixels as PNG: stored, not compressed, as they are few. */
export function png(pixels, side = SIDE) {
  const rows = new Uint8Array(side * (side + 1)); // each row begins with its filter, 0: none
  for (let y = 0; y < side; y += 1) rows.set(pixels.subarray(y * side, (y + 1) * side), y * (side + 1) + 1);
  const size = [rows.length & 255, rows.length >> 8];
  const stored = [0x78, 0x01, 1, ...size, ...size.map((byte) => byte ^ 255), ...rows, ...number(adler32(rows))];
  const chunks = [
    chunk("IHDR", [...number(side), ...number(side), 8, 0, 0, 0, 0]),
    chunk("IDAT", stored),
    chunk("IEND", []),
  ];
  return Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, ...chunks.flat()]);
}

const number = (value) => [24, 16, 8, 0].map((bits) => (value >>> bits) & 255);

function chunk(name, content) {
  const named = [...Array.from(name, (letter) => letter.charCodeAt(0)), ...content];
  return [...number(content.length), ...named, ...number(crc32(named))];
}

function adler32(bytes) {
  let [low, high] = [1, 0];
  for (const byte of bytes) {
    low = (low + byte) % 65521;
    high = (high + low) % 65521;
  }
  return (high * 65536 + low) >>> 0;
}

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
