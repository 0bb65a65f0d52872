// Small help with the page itself.
export const $ = (id) => document.getElementById(id);

/** Make an element: el("p", {class: "soft", onclick: f}, "text", child). */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `sprite.svg#${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Tell a screen reader; the eyes see it elsewhere. */
export function say(text) {
  $("said").textContent = text;
}

/** Show a line for a moment, with at most one thing to do about it. */
export function toast(text, action, ms = action ? 15000 : 5000) {
  const line = el("div", { class: "toast", role: "status" }, text);
  if (action) {
    line.append(el("button", { type: "button", onclick: () => { line.remove(); action.act(); } }, action.label));
  }
  $("toasts").append(line);
  setTimeout(() => line.remove(), ms);
  return line;
}

/** A picture of a blob; its address is given back once it is loaded. */
export function picture(blob, attributes = {}) {
  const url = URL.createObjectURL(blob);
  const done = () => URL.revokeObjectURL(url);
  return el("img", { src: url, alt: "", onload: done, onerror: done, ...attributes });
}

/** A dialog with a title and a way out, removed when closed. */
export function dialog(title, ...content) {
  const id = `title-${Math.random().toString(36).slice(2)}`;
  const close = el("button", { class: "icon-button", type: "button", "aria-label": "Close", onclick: () => box.close() }, icon("close"));
  const box = el("dialog", { "aria-labelledby": id },
    el("div", { class: "stack" }, el("div", { class: "head" }, el("h2", { id }, title), close), ...content));
  box.addEventListener("close", () => box.remove());
  box.addEventListener("click", (event) => event.target === box && box.close());
  document.body.append(box);
  box.showModal();
  return box;
}

export const percent = (share) => `${Math.round(share * 100)}\u00a0%`;

/** A time, as people say it: Today, 14:05; or 3 Nov, 14:05. */
export function when(at) {
  const date = new Date(at);
  const time = date.toLocaleTimeString(undefined, { timeStyle: "short" });
  if (date.toDateString() === new Date().toDateString()) return `Today, ${time}`;
  return `${date.toLocaleDateString(undefined, { day: "numeric", month: "short" })}, ${time}`;
}

/** A class without an entry in the catalogue is its own label: bali-tea reads better as Bali tea. */
export function pretty(label, item) {
  if (label !== item || !/^[\p{Ll}\d]+(-[\p{Ll}\d]+)*$/u.test(label)) return label;
  const words = label.replaceAll("-", " ");
  return words[0].toUpperCase() + words.slice(1);
}
