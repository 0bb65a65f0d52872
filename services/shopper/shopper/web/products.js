// The products that can be taught: the catalogue's, those taught here before, and how many photos each has.
import { call } from "./api.js";
import { pretty } from "./dom.js";
import { slug } from "./item.js";

const OWN = "caravan-products";
const MAX_OWN = 30;

const own = () => JSON.parse(localStorage.getItem(OWN) ?? "[]");

/** Keep a name that the catalogue has not, so that it can be chosen again. */
export function addOwn(name) {
  localStorage.setItem(OWN, JSON.stringify([name, ...own().filter((each) => slug(each) !== slug(name))].slice(0, MAX_OWN)));
}

/** List {label, images, isNew, name}; `name` is what the shop is told. Without a network: what was known last. */
export async function products() {
  const [{ products: labels }, counts] = await Promise.all([remembered("ingestion/options"), remembered("ingestion/counts")]);
  const images = new Map(counts.products.map((each) => [slug(each.label), each.images]));
  const list = labels.map((label) => ({ name: label, label, isNew: false }));
  const known = new Set(labels.map(slug));
  for (const name of [...own(), ...counts.products.map((each) => each.label)]) {
    if (known.has(slug(name))) continue;
    known.add(slug(name));
    list.push({ name, label: pretty(name, name), isNew: true });
  }
  return list.map((each) => ({ ...each, images: images.get(slug(each.name)) ?? 0 }));
}

async function remembered(path) {
  try {
    const answer = await call(path);
    localStorage.setItem(path, JSON.stringify(answer));
    return answer;
  } catch (error) {
    const last = localStorage.getItem(path);
    if (last === null) throw error;
    return JSON.parse(last);
  }
}
