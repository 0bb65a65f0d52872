// A grid of photos that are chosen by touch, mouse or keyboard: one of them is in the tab order, arrows move.
import { el, icon, percent, pretty } from "./dom.js";
import { address } from "./review-desk.js";

const WHY = { unknown: "not known", uncertain: "unsure", audit: "spot check", drift: "looks unlike", differing: "versions differ" };

export class Grid {
  #tiles = new Map(); // name of an image → {image, item, button}
  #chosen = new Set();
  #guess = "";
  #anchor = null; // where a range begins
  #on;

  /** `onchoice()` hears of every choice, `onkey(key, image)` of keys that are not the grid's own. */
  constructor({ onchoice, onkey, onlook }) {
    this.#on = { onchoice, onkey, onlook };
    this.element = el("ul", { class: "photos", "aria-label": "Photos to look at" });
    this.element.addEventListener("keydown", (event) => this.#pressed(event));
  }

  get size() {
    return this.#tiles.size;
  }

  all = () => [...this.#tiles.values()].map((tile) => tile.image);
  seen = () => this.#shown().map((tile) => tile.image);
  chosen = () => this.seen().filter(({ image }) => this.#chosen.has(image));

  add(images) {
    for (const image of images) {
      if (this.#tiles.has(image.image)) continue;
      const tile = this.#tile(image);
      this.#tiles.set(image.image, tile);
      this.element.append(tile.item);
    }
    this.#rove();
  }

  /** Take photos out; who was at one of them is then at the next. */
  remove(images) {
    const shown = this.#shown();
    const gone = new Set(images.map(({ image }) => image));
    const at = shown.findIndex((tile) => gone.has(tile.image.image));
    const held = this.element.contains(document.activeElement) || document.activeElement === document.body || document.activeElement?.closest(".decide");
    for (const name of gone) {
      this.#tiles.get(name)?.item.remove();
      this.#tiles.delete(name);
      this.#chosen.delete(name);
    }
    const left = this.#shown();
    if (held && left.length) this.#go(left[Math.min(at, left.length - 1)]);
    else this.#rove();
  }

  clear() {
    this.#tiles.clear();
    this.#chosen.clear();
    this.element.replaceChildren();
    this.#on.onchoice();
  }

  /** Show those with one guess alone; what is out of sight is not chosen. */
  filter(guess) {
    this.#guess = guess;
    for (const { image, item, button } of this.#tiles.values()) {
      item.hidden = !this.#fits(image);
      if (!item.hidden) continue;
      this.#chosen.delete(image.image);
      button.setAttribute("aria-pressed", false);
    }
    this.#rove();
    this.#on.onchoice();
  }

  /** Choose all that are seen; or none, if all are. */
  chooseAll() {
    const shown = this.#shown();
    const every = shown.every(({ image }) => this.#chosen.has(image.image));
    for (const tile of shown) this.#choose(tile, !every);
    this.#on.onchoice();
  }

  #fits = (image) => !this.#guess || image.guess === this.#guess;
  #shown = () => [...this.#tiles.values()].filter(({ image }) => this.#fits(image));

  #tile(image) {
    const both = image.answers?.map(({ label, item }) => pretty(label, item)).join(" or ");
    const guess = both ? `${both}?` : image.guess ? `${pretty(image.guess_label, image.guess)}?` : ["audit", "drift"].includes(image.why) ? "What is it?" : "No guess";
    const score = image.score === null ? "" : percent(image.score);
    const button = el("button", { class: "photo-choice", type: "button", "aria-pressed": "false", tabindex: -1 },
      el("img", { src: address(image.image), alt: "Photo", loading: "lazy", decoding: "async", width: 160, height: 160 }),
      el("span", { class: "facts" }, el("strong", {}, guess), el("span", { class: "soft small" }, WHY[image.why], score ? `, ${score}` : "")));
    const zoom = el("button", { class: "zoom", type: "button", tabindex: -1, "aria-label": `Look closer: ${guess} ${score}` }, icon("zoom"));
    const item = el("li", {}, button, zoom);
    const tile = { image, item, button };
    button.addEventListener("click", (event) => {
      this.#anchor ??= tile;
      if (event.shiftKey) this.#range(tile);
      else this.#choose(tile, !this.#chosen.has(image.image));
      this.#anchor = tile;
      this.#rove(tile);
      this.#on.onchoice();
    });
    zoom.addEventListener("click", () => this.#on.onlook(image));
    return tile;
  }

  #choose({ image, button }, chosen) {
    button.setAttribute("aria-pressed", chosen);
    if (chosen) this.#chosen.add(image.image);
    else this.#chosen.delete(image.image);
  }

  #range(to) {
    const shown = this.#shown();
    const ends = [shown.indexOf(this.#anchor), shown.indexOf(to)].sort((one, other) => one - other);
    for (const tile of shown.slice(Math.max(0, ends[0]), ends[1] + 1)) this.#choose(tile, true);
  }

  /** One tile, and one alone, is reached with Tab. */
  #rove(to) {
    const shown = this.#shown();
    const at = to ?? shown.find(({ button }) => button.tabIndex === 0) ?? shown[0];
    for (const { button } of this.#tiles.values()) button.tabIndex = -1;
    if (at) at.button.tabIndex = 0;
  }

  #go(tile) {
    this.#rove(tile);
    tile.button.focus();
  }

  #pressed(event) {
    const shown = this.#shown();
    const at = shown.findIndex(({ item }) => item.contains(document.activeElement));
    const own = event.ctrlKey || event.metaKey ? event.key.toLowerCase() === "a" : !event.altKey;
    if (at < 0 || !own) return;
    const step = this.#step(event.key, shown, at);
    if (step !== null) {
      const to = shown[Math.max(0, Math.min(shown.length - 1, at + step))];
      if (event.shiftKey) {
        this.#choose(shown[at], true);
        this.#anchor = shown[at];
        this.#range(to);
        this.#on.onchoice();
      }
      this.#go(to);
    } else if (event.key.toLowerCase() === "a") this.chooseAll();
    else if (event.key === "Escape") {
      for (const tile of shown) this.#choose(tile, false);
      this.#on.onchoice();
    } else if (!this.#alone(event, shown[at])) return;
    event.preventDefault();
  }

  /** A key that decides, with nothing chosen, decides the photo that one is at. */
  #alone(event, tile) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!this.#chosen.size && /^([1-9g]|Delete|Backspace)$/.test(key)) {
      this.#choose(tile, true);
      this.#on.onchoice();
    }
    return this.#on.onkey(key, tile.image);
  }

  #step(key, shown, at) {
    const top = shown[0].item.offsetTop;
    const columns = Math.max(1, shown.filter(({ item }) => item.offsetTop === top).length);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: shown.length - 1 - at };
    return steps[key] ?? null;
  }
}
