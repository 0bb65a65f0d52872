// Dots that move along arrows: a bounded number, whatever happens; the truth is in the numbers.
//
// On a canvas above the drawing: a moving dot inside of it would have all of it painted again.
const MOST = 80;
const EACH_MS = 140;
const FRAME_MS = 30;
const SPEED = 190;
const STEPS = 48;
const RADIUS = 4.5;
const COLOURS = { "": "--accent", good: "--good", bad: "--bad", unsure: "--unsure" };

/** Returns the canvas, and `send(arrow, tone)`, which lets a dot go unless there are enough. */
export function makeDots(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { className: "dots" });
  canvas.setAttribute("aria-hidden", "true");
  const pen = canvas.getContext("2d");
  const moving = [];
  const lastSent = new Map();
  let colours = {};
  let ticking = false;
  let drawn = 0;

  function fit() {
    const ratio = Math.min(2, devicePixelRatio);
    const { width: w, height: h } = canvas.getBoundingClientRect();
    canvas.width = Math.round(w * ratio);
    canvas.height = Math.round(h * ratio);
    // The drawing keeps its shape within its place, in the middle; so does this.
    const scale = Math.min(canvas.width / width, canvas.height / height);
    pen.setTransform(scale, 0, 0, scale, (canvas.width - width * scale) / 2, (canvas.height - height * scale) / 2);
  }
  new ResizeObserver(fit).observe(canvas);

  function paintbox() {
    const style = getComputedStyle(document.documentElement);
    colours = Object.fromEntries(Object.entries(COLOURS).map(([tone, name]) => [tone, style.getPropertyValue(name)]));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintbox);
  paintbox();

  function send(arrow, tone) {
    const now = performance.now();
    if (moving.length >= MOST || now - (lastSent.get(arrow.id) ?? 0) < EACH_MS || document.hidden) return;
    lastSent.set(arrow.id, now);
    moving.push({ points: arrow.points, tone, began: now, lasts: Math.max(350, (arrow.length / SPEED) * 1000) });
    if (ticking) return;
    ticking = true;
    requestAnimationFrame(tick);
  }

  function tick(now) {
    if (now - drawn >= FRAME_MS) {
      drawn = now;
      pen.clearRect(-width, -height, 3 * width, 3 * height);
      for (let index = moving.length - 1; index >= 0; index -= 1) {
        const { points, tone, began, lasts } = moving[index];
        const share = Math.max(0, (now - began) / lasts);
        if (share >= 1) {
          moving.splice(index, 1);
        } else {
          pen.fillStyle = colours[tone];
          pen.beginPath();
          pen.arc(...at(points, ease(share)), RADIUS, 0, 7);
          pen.fill();
        }
      }
    }
    ticking = moving.length > 0;
    if (ticking) requestAnimationFrame(tick);
  }

  return { canvas, send };
}

/** Points along a path, once: asking the path for each dot in each frame is slow. */
export function sample(path) {
  const length = path.getTotalLength();
  const points = Array.from({ length: STEPS + 1 }, (_, index) => {
    const { x, y } = path.getPointAtLength((length * index) / STEPS);
    return [x, y];
  });
  return { points, length };
}

function at(points, share) {
  const place = share * STEPS;
  const index = Math.min(STEPS - 1, Math.floor(place));
  const [a, b] = [points[index], points[index + 1]];
  return [a[0] + (b[0] - a[0]) * (place - index), a[1] + (b[1] - a[1]) * (place - index)];
}

const ease = (share) => share * share * (3 - 2 * share);
