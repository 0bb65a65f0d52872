// A sheet of paper: strokes by finger, mouse or pen, drawn as they come.
const PEN = 0.05; // of the paper's width
const INK = "#241f1b";
const MOST_STROKES = 64;

/**
 * Let a canvas be drawn on. `changed(strokes)` hears of each stroke that ends and of each that is taken back.
 * A stroke is an array of {x, y}, in shares of the paper.
 */
export function paper(canvas, changed) {
  const context = canvas.getContext("2d");
  let strokes = [];
  let pointer = null; // one at a time: a palm or a second finger draws nothing

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  };

  function show() {
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.width !== side) canvas.width = canvas.height = side;
    context.clearRect(0, 0, side, side);
    Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: PEN * side, strokeStyle: INK });
    for (const stroke of strokes) {
      context.beginPath();
      for (const { x, y } of [stroke[0], ...stroke]) context.lineTo(x * side, y * side); // a lone point is a dot
      context.stroke();
    }
  }

  function end(event) {
    if (event.pointerId !== pointer) return;
    pointer = null;
    changed(strokes);
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0 || strokes.length >= MOST_STROKES) return;
    event.preventDefault();
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    strokes.push([at(event)]);
    show();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const between = event.getCoalescedEvents?.() ?? [];
    strokes.at(-1).push(...(between.length ? between : [event]).map(at));
    show();
  });
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", (event) => {
    if (event.pointerId !== pointer) return;
    strokes.pop(); // the browser took it for a gesture
    show();
    end(event);
  });
  new ResizeObserver(show).observe(canvas);

  const keep = (some) => {
    if (pointer !== null) return;
    strokes = some;
    show();
    changed(strokes);
  };
  return { undo: () => keep(strokes.slice(0, -1)), clear: () => keep([]) };
}
