// What this browser keeps: photos on their way (outbox) and the last answers (history), in IndexedDB.
const NAME = "caravan";
export const OUTBOX = "outbox";
export const HISTORY = "history";

let opened;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      for (const store of [OUTBOX, HISTORY]) {
        request.result.createObjectStore(store, { keyPath: "key" }).createIndex("at", "at");
      }
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => {
      opened = undefined;
      reject(new Error("This browser keeps nothing for this page: private mode, or its storage is full."));
    };
  });
  return opened;
}

/** Run work(…stores) in one transaction; resolves with its request's result once all of it is safe. */
export async function transact(names, work) {
  const all = [names].flat();
  const transaction = (await database()).transaction(all, "readwrite");
  const request = work(...all.map((name) => transaction.objectStore(name)));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = () => reject(new Error("This device has no room left for photos. Clear the history."));
  });
}

export const put = (name, value) => transact(name, (store) => store.put(value));
export const get = (name, key) => transact(name, (store) => store.get(key));
export const remove = (name, key) => transact(name, (store) => store.delete(key));
export const clear = (name) => transact(name, (store) => store.clear());
export const oldestFirst = (name) => transact(name, (store) => store.index("at").getAll());
export const keysOldestFirst = (name) => transact(name, (store) => store.index("at").getAllKeys());
