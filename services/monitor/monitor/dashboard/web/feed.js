// What the server tells: a snapshot, then frames. The state here is all that any view shows.
const KEPT = { log: 60, uncertain: 24 };
const AGAIN_MS = 3000;

export const state = { edges: new Map(), hub: {}, cameras: new Map(), uncertain: [], log: new Map(), letters: [] };

let ahead = 0;

/** The time at the server, in ms since 1970: this machine's clock may be wrong. */
export const now = () => Date.now() + ahead;

/** Follow the events for as long as the page is open. */
export function connect({ onChange, onFlow, onState, onHolder }) {
  signIn(onHolder);
  const source = new EventSource("dashboard/events");
  source.addEventListener("open", () => onState("Live", "yes"));
  source.addEventListener("snapshot", ({ data }) => {
    const snapshot = JSON.parse(data);
    ahead = new Date(snapshot.at) - Date.now();
    start(snapshot);
    onChange(Object.keys(state));
  });
  source.addEventListener("frame", ({ data }) => {
    const { flow, ...frame } = JSON.parse(data);
    onChange(merge(frame));
    if (flow) onFlow(flow);
  });
  source.addEventListener("error", () => {
    onState("Connection lost; trying again", "no");
    // A browser comes back by itself, unless it was refused.
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => connect({ onChange, onFlow, onState, onHolder }), AGAIN_MS);
    }
  });
}

/** Lead who is not known to the login, while the events are asked for. */
async function signIn(onHolder) {
  try {
    const { needed, holder } = await (await fetch("dashboard/access")).json();
    if (!needed) return;
    if (holder) onHolder(holder);
    else location.replace("login");
  } catch {
    // The events will tell when the server is back.
  }
}

function start(snapshot) {
  state.edges = new Map(snapshot.edges.map((edge) => [edge.edge, edge]));
  state.cameras = new Map(snapshot.cameras.map((one) => [nameOf(one), one]));
  state.log = new Map(snapshot.log.map((line) => [line.id, line]));
  state.uncertain = snapshot.uncertain;
  state.hub = snapshot.hub;
  state.letters = snapshot.letters;
}

/** Take a frame in; tells which parts have changed. */
function merge({ edges = [], cameras = [], log = [], uncertain = [], hub, letters }) {
  edges.forEach((edge) => state.edges.set(edge.edge, edge));
  cameras.forEach((one) => state.cameras.set(nameOf(one), one));
  for (const line of log) {
    if (state.log.has(line.id)) Object.assign(state.log.get(line.id), line);
    else state.log.set(line.id, line);
  }
  while (state.log.size > KEPT.log) state.log.delete(state.log.keys().next().value);
  state.uncertain = [...uncertain.reverse(), ...state.uncertain].slice(0, KEPT.uncertain);
  if (hub) state.hub = hub;
  if (letters) state.letters = letters;
  const changed = { edges: edges.length, cameras: cameras.length, log: log.length, uncertain: uncertain.length, hub, letters };
  return Object.keys(changed).filter((name) => changed[name]);
}

const nameOf = (one) => `${one.edge}/${one.camera}`;
