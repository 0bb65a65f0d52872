// The flow, drawn: boxes, arrows, and what goes along them as it happens. The log beside it says it in words.
import { makeDots, sample } from "./dots.js";
import { layout } from "./layout.js";
import { svg } from "./svg.js";
import { number } from "./words.js";

const TICK_MS = 250;
const SMOOTH_SECONDS = 2;
const NUMBERS_FROM = 1;
const TONES = { rejected: "bad", ready: "good", serve: "good", uncertain: "unsure" };
const CAPTION = "How images and models travel: uploads go to the feeder, from there to storage, Kafka and training; versions that pass go to each edge's model server, which answers its cameras. What happens is told in words under What happened.";

export function drawFlow(place) {
  const narrow = matchMedia("(max-width: 46rem)");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let drawn = null;
  let names = "";
  let latest = null;
  let timer = 0;

  function draw(edges) {
    names = edges.join(" ");
    drawn = build(edges, narrow.matches);
    place.replaceChildren(drawn.picture, drawn.dots.canvas);
    drawn.arrows.forEach((arrow) => Object.assign(arrow, sample(arrow.line)));
  }

  narrow.addEventListener("change", () => {
    if (latest) {
      names = "";
      show(latest);
    }
  });

  function show(state) {
    latest = state;
    const edges = [...state.edges.keys()];
    if (edges.join(" ") !== names) draw(edges);
    say(drawn, state);
    for (const edge of edges) drawn.steady.set(edge, state.hub.edges?.[edge]?.images_per_second ?? 0);
    run();
  }

  function count(flow) {
    if (!drawn) return;
    for (const arrow of drawn.arrows) {
      for (const kind of arrow.kinds) {
        const counted = arrow.edge ? flow[arrow.edge]?.[kind] ?? 0 : Object.values(flow).reduce((sum, one) => sum + (one[kind] ?? 0), 0);
        if (!counted) continue;
        arrow.count += counted;
        if (!still.matches) drawn.dots.send(arrow, TONES[kind] ?? "");
      }
    }
    run();
  }

  // The timer rests when nothing moves: a quiet wall costs nothing.
  function run() {
    timer ||= setInterval(tick, TICK_MS);
  }

  function tick() {
    let busy = false;
    const share = 1 - Math.exp(-TICK_MS / 1000 / SMOOTH_SECONDS);
    for (const arrow of drawn.arrows) {
      const steady = arrow.kinds.includes("ask") ? drawn.steady.get(arrow.edge) ?? 0 : 0;
      arrow.rate = steady || arrow.rate + ((arrow.count * 1000) / TICK_MS - arrow.rate) * share;
      arrow.count = 0;
      if (arrow.rate < 0.02) arrow.rate = 0;
      if (steady && !still.matches && Math.random() < (steady * TICK_MS) / 1000) drawn.dots.send(arrow, "");
      paint(arrow);
      busy ||= arrow.rate > 0;
    }
    if (!busy) {
      clearInterval(timer);
      timer = 0;
    }
  }

  return { show, count };
}

function build(edges, narrow) {
  const plan = layout(edges, narrow);
  const lines = svg("g");
  const labels = svg("g");
  const boxes = svg("g");
  const arrows = plan.arrows.map((arrow) => {
    const line = lines.appendChild(svg("path", { class: `arrow ${arrow.kinds[0]}`, d: arrow.d, "marker-end": "url(#tip)" }));
    const label = labels.appendChild(svg("text", { class: "rate", x: arrow.label[0] + (arrow.upright ? 10 : 0), y: arrow.label[1] - (arrow.upright ? 0 : 9), "text-anchor": arrow.upright ? "start" : "middle" }));
    return { ...arrow, line, text: label, count: 0, rate: 0, shown: "" };
  });
  const nodes = new Map([...plan.nodes.values()].map((node) => [node.id, box(boxes, node)]));
  const sides = svg("g", {}, side(plan.central, "Central"), ...plan.lanes.map((lane) => side(lane, lane.edge, "lane")));
  const { x, top, bottom, width } = plan.spine;
  const spine = svg("g", { class: "spine" },
    svg("rect", { x: x - width / 2, y: top, width, height: bottom - top, rx: 14 }),
    svg("text", { transform: `translate(${x} ${(top + bottom) / 2}) rotate(-90)` }, "Kafka"));
  const tip = svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, markerUnits: "userSpaceOnUse", orient: "auto" }, svg("path", { d: "M0 0L8 4L0 8z" }));
  const picture = svg("svg", { viewBox: `0 0 ${plan.width} ${plan.height}`, class: narrow ? "flow narrow" : "flow", role: "img", "aria-label": CAPTION }, svg("defs", {}, tip), sides, spine, lines, boxes, labels);
  return { picture, arrows, nodes, lanes: plan.lanes, dots: makeDots(plan.width, plan.height), steady: new Map() };
}

function side({ x, y, w, h }, title, kind = "") {
  return svg("g", { class: `side ${kind}` }, svg("rect", { x, y, width: w, height: h, rx: 16 }), svg("text", { x: x + 14, y: y + 20 }, title));
}

function box(layer, { x, y, w, h, title }) {
  const sub = svg("text", { class: "sub", x, y: y + 10 });
  const name = svg("text", { class: "name", x, y });
  const bar = svg("rect", { class: "bar-fill", x: x - w / 2 + 8, y: y + h / 2 - 5, width: 0, height: 3, rx: 1.5 });
  const node = svg("g", { class: "node" }, svg("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: 11 }), name, sub, bar);
  name.textContent = title;
  layer.append(node);
  return { node, name, sub, bar, y, room: w - 16, shown: null };
}

function say(drawn, { edges, hub, cameras }) {
  const all = [...edges.values()];
  const storing = all.filter(({ upload }) => upload?.state === "storing");
  put(drawn, "feeder", storing.length ? `${number(storing.reduce((sum, { upload }) => sum + upload.images, 0))} stored` : "");
  const running = all.filter(({ training }) => training?.running).map(({ training }) => training);
  const first = running[0];
  put(drawn, "training", first ? `${first.stage} ${Math.round(first.progress * 100)} %` : "", first ? "busy" : "", first?.progress ?? 0);
  put(drawn, "images", "S3");
  put(drawn, "ready", "S3");
  const rate = Object.values(hub.edges ?? {}).reduce((sum, one) => sum + one.images_per_second, 0);
  put(drawn, "hub", rate ? `${number(rate)} images/s` : "");
  for (const edge of all) {
    const sums = hub.edges?.[edge.edge] ?? { live: 0, images_per_second: 0 };
    const [main] = edge.models;
    put(drawn, `server ${edge.edge}`, main?.serving ? `serves v${main.serving}` : "no model yet", edge.link.model_server ? "bad" : "");
    put(drawn, `manager ${edge.edge}`, { up: "link is up", down: "link is down", unknown: "not heard of" }[edge.link.state], edge.link.state === "up" ? "" : "bad");
    put(drawn, `shopper ${edge.edge}`, sums.images_per_second ? `${number(sums.images_per_second)} images/s` : "");
    put(drawn, `cameras ${edge.edge}`, cameras.size ? `${sums.live} live` : "");
    put(drawn, `monitor ${edge.edge}`, "MQTT");
  }
}

function put(drawn, id, text, tone = "", share = 0) {
  const box = drawn.nodes.get(id);
  const shown = `${text}|${tone}|${share}`;
  if (box.shown === shown) return;
  box.shown = shown;
  box.sub.textContent = text;
  box.name.setAttribute("y", text ? box.y - 8 : box.y);
  box.node.setAttribute("class", `node ${tone}`);
  box.bar.setAttribute("width", (box.room * share).toFixed(1));
}

function paint(arrow) {
  const width = (1.6 + Math.min(6, Math.log2(1 + arrow.rate) * 0.75)).toFixed(1);
  const text = arrow.roomy && arrow.rate >= NUMBERS_FROM ? `${number(arrow.rate)}/s` : "";
  const shown = `${width} ${text}`;
  if (arrow.shown === shown) return;
  arrow.shown = shown;
  arrow.line.style.strokeWidth = width;
  arrow.line.classList.toggle("alive", arrow.rate > 0);
  arrow.text.textContent = text;
}
