// Where everything of the flow is drawn. Pure: edges and a shape in, boxes and paths out.
//
// Kafka is the spine. Central lies to its left; the edges lie to its right where there is room for that, and
// below central, mirrored, where there is not.
const WIDE = { node: [140, 52], columns: [84, 252, 420], spine: 566, lane: [744, 924, 1100], width: 1184, trunk: 628, row: 98, top: 64, turned: false };
const NARROW = { node: [84, 42], columns: [52, 149, 246], spine: 339, lane: [246, 149, 52], width: 360, trunk: 300, row: 72, top: 56, turned: true };
const LANE = 208;
/** A shorter arrow has no room for a number. */
const SHORTEST = 44;
const LANE_GAP = 14;

/** Lay out: `{width, height, spine, nodes, arrows, lanes}`; nodes by id, arrows with what goes along them. */
export function layout(edges, narrow) {
  const shape = narrow ? NARROW : WIDE;
  const [people, left, mid] = shape.columns;
  const rows = [0, 1, 2, 3, 4].map((row) => shape.top + row * shape.row);
  const nodes = new Map();
  const add = (id, x, y, title, edge = null) => nodes.set(id, { id, x, y, w: shape.node[0], h: shape.node[1], title, edge });

  const centralHeight = rows[4] + 40;
  const lanesHeight = edges.length * (LANE + LANE_GAP) - LANE_GAP;
  const height = shape.turned ? centralHeight + 34 + lanesHeight + 12 : Math.max(centralHeight, lanesHeight + 16);
  const shift = shape.turned ? 0 : (height - centralHeight) / 2;
  const [r1, r2, r3, r4, r5] = rows.map((y) => y + shift);

  add("people", people, r1, "uploads");
  add("feeder", left, r1, "feeder");
  add("delivery", mid, r2, "delivery");
  add("images", left, r3, "images");
  add("training", mid, r3, "training");
  add("ready", mid, r4, "ready");
  add("hub", mid, r5, "hub");

  const spine = { x: shape.spine, top: 8, bottom: height - 8, width: narrow ? 34 : 46 };
  const half = shape.node[0] / 2;
  const tall = shape.node[1] / 2;
  const nearSpine = shape.spine - spine.width / 2;
  const arrows = [
    arrow("upload-in", ["upload"], line([people + half, r1], [left - half, r1])),
    arrow("upload-store", ["upload"], line([left, r1 + tall], [left, r3 - tall])),
    arrow("tell", ["upload", "trigger"], line([left + half, r1], [nearSpine, r1])),
    arrow("deliver", ["trigger"], line([nearSpine, r2], [mid + half, r2])),
    arrow("start", ["trigger"], line([mid, r2 + tall], [mid, r3 - tall])),
    arrow("learn", ["training"], line([left + half, r3], [mid - half, r3])),
    arrow("progress", ["training", "rejected"], line([mid + half, r3], [nearSpine, r3])),
    arrow("pass", ["ready"], line([mid, r3 + tall], [mid, r4 - tall])),
    arrow("metrics-in", ["metrics", "uncertain"], line([nearSpine, r5], [mid + half, r5])),
  ];

  const firstTop = shape.turned ? centralHeight + 34 : (height - lanesHeight) / 2;
  const lanes = edges.map((edge, index) => {
    const top = firstTop + index * (LANE + LANE_GAP);
    const [a, b] = [top + 66, top + 146];
    const [near, middle, far] = shape.lane;
    const way = shape.turned ? -1 : 1;
    const fromSpine = shape.spine + (way * spine.width) / 2;
    add(`manager ${edge}`, near, a, "edge-manager", edge);
    add(`server ${edge}`, middle, a, "model server", edge);
    add(`monitor ${edge}`, near, b, "monitor", edge);
    add(`shopper ${edge}`, middle, b, "shopper", edge);
    add(`cameras ${edge}`, far, b, "cameras", edge);
    const along = (kind, kinds, points) => arrows.push(arrow(`${kind} ${edge}`, kinds, bend(points), edge));
    along("bring", ["ready"], [[mid + half, r4], [shape.trunk, r4], [shape.trunk, a], [near - way * half, a]]);
    along("serve", ["serve"], [[near + way * half, a], [middle - way * half, a]]);
    along("events", ["events"], [[fromSpine, b], [near - way * half, b]]);
    along("ask", ["ask"], [[far - way * half, b], [middle + way * half, b]]);
    along("classify", ["ask"], [[middle, b - tall], [middle, a + tall]]);
    along("metrics", ["metrics", "uncertain"], [[middle, b + tall], [middle, b + tall + 22], [fromSpine, b + tall + 22]]);
    const sides = shape.turned ? [4, nearSpine - 22] : [shape.trunk + 26, shape.width - 6];
    return { edge, x: sides[0], y: top, w: sides[1] - sides[0], h: LANE };
  });
  const central = { x: 2, y: 2, w: nearSpine - 8, h: centralHeight + shift };
  return { width: shape.width, height, spine, nodes, arrows, lanes, central };
}

const arrow = (id, kinds, path, edge = null) => ({ id, kinds, edge, ...path });

const line = (from, to) => bend([from, to]);

/** A path along points, its corners rounded; with where a label fits best, the middle of its longest part. */
function bend(points) {
  const parts = points.slice(1).map((to, index) => ({ from: points[index], to, length: distance(points[index], to) }));
  const longest = parts.reduce((one, other) => (other.length > one.length ? other : one));
  let d = `M${points[0].join(" ")}`;
  for (let index = 1; index < points.length - 1; index += 1) {
    const corner = points[index];
    const radius = Math.min(12, distance(points[index - 1], corner) / 2, distance(corner, points[index + 1]) / 2);
    d += `L${toward(corner, points[index - 1], radius).join(" ")}Q${corner.join(" ")} ${toward(corner, points[index + 1], radius).join(" ")}`;
  }
  d += `L${points.at(-1).join(" ")}`;
  const label = [0, 1].map((axis) => (longest.from[axis] + longest.to[axis]) / 2);
  const upright = longest.from[0] === longest.to[0];
  return { d, label, upright, roomy: upright || longest.length >= SHORTEST };
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

function toward(from, to, by) {
  const length = distance(from, to) || 1;
  return [0, 1].map((axis) => Math.round((from[axis] + ((to[axis] - from[axis]) * by) / length) * 10) / 10);
}
