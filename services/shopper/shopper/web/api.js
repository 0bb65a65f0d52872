// The shopper's HTTP door, for pages and for the service worker.
const PATIENCE_MS = 20000;

/** Nobody answers: the same may work later. */
export class Away extends Error {}

/** The shopper said no, and why. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  /** Whether the same may be taken later, or by someone who has signed in. */
  get later() {
    return this.status >= 500 || [401, 408, 429].includes(this.status);
  }
}

/** A name that nothing else has: a repeat with it is no second request. (`crypto.randomUUID` needs https or localhost.) */
export const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch (error) {
    throw new Away("The shop does not answer. Is the network there?", { cause: error });
  }
  if (response.status === 502 || response.status === 504) throw new Away("The way to the shop is interrupted.");
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  if (response.status === 401 && globalThis.document) location.assign(signIn());
  throw new Refused(response.status, words(response.status, body.detail));
}

export const postJson = (path, value, headers = {}) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(value) });

/** Where to sign in, and be led back from to this page. */
function signIn() {
  const here = location.pathname.split("/").at(-1) + location.search;
  return here ? `login?next=${encodeURIComponent(here)}` : "login";
}

function words(status, detail) {
  if (status === 401) return "Sign in first.";
  if (status === 413) return "This photo is too large for the shop. Try another one.";
  return detail ? `${detail[0].toUpperCase()}${detail.slice(1)}.`.replace(/\.\.$/, ".") : `The shop answered ${status}. Try again.`;
}
