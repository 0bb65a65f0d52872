// The service worker: keeps the app's files, all of one version, and sends the outbox when a network is back.
// The server writes the version and the names of the files above: const SHELL = {version, files}.
import { flush } from "./outbox.js";

const CACHE = `caravan-${SHELL.version}`;
const PAGES = new Map(SHELL.files.map((file) => [new URL(file, registration.scope).href, file]));

addEventListener("install", (event) => {
  const fresh = SHELL.files.map((file) => new Request(new URL(file, registration.scope), { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(fresh)));
});

addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) {
      if (name.startsWith("caravan-") && name !== CACHE) await caches.delete(name);
    }
    await clients.claim();
  })());
});

addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  url.hash = "";
  if (event.request.method === "GET" && PAGES.has(url.href)) event.respondWith(kept(event.request, url.href));
});

addEventListener("message", (event) => {
  if (event.data === "take over") skipWaiting();
});

addEventListener("sync", (event) => {
  if (event.tag === "outbox") event.waitUntil(sendAll());
});

async function kept(request, address) {
  const cache = await caches.open(CACHE);
  return (await cache.match(address)) ?? fetch(request);
}

async function sendAll() {
  const { left } = await flush();
  if (left) throw new Error(`${left} photos are left`); // the browser wakes us again
}
