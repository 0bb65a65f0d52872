// Choosing a product: one of those there are, or a new one by its name.
import { el } from "./dom.js";
import { addOwn, products } from "./products.js";

const MAX_NAME = 60;

/** Make a picker: {element, value(), choose(name), refresh()}; `onchange` hears of every choice. */
export function picker(legend, { counts = false, onchange = () => {} } = {}) {
  const group = `product-${Math.random().toString(36).slice(2)}`;
  const chips = el("div", { class: "chips" });
  const trouble = el("p", { class: "error", role: "alert", hidden: true });
  const name = el("input", { type: "text", id: `${group}-new`, maxlength: MAX_NAME, autocomplete: "off", placeholder: "Bali Tea" });
  const add = el("button", { class: "button", type: "submit" }, "Add");
  const anew = el("form", { class: "row" }, el("div", { class: "grow" }, name), add);
  const element = el("div", { class: "stack" },
    el("fieldset", { class: "stack" }, el("legend", { class: "unseen" }, legend), chips), trouble,
    el("div", { class: "field" }, el("label", { for: name.id }, "Something else?"), anew));
  let list = [];

  anew.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = name.value.trim();
    if (!/[\p{L}\p{N}]/u.test(wanted)) {
      name.focus();
      return;
    }
    const known = list.find((each) => each.label.toLowerCase() === wanted.toLowerCase());
    if (!known) addOwn(wanted);
    name.value = "";
    await refresh();
    choose(known?.name ?? wanted);
    chips.querySelector("input:checked")?.focus();
  });
  chips.addEventListener("change", () => onchange(value()));

  function value() {
    const chosen = chips.querySelector("input:checked");
    return list.find((each) => each.name === chosen?.value) ?? null;
  }

  function choose(wanted) {
    for (const input of chips.querySelectorAll("input")) input.checked = input.value === wanted;
    onchange(value());
  }

  async function refresh() {
    const before = value()?.name;
    try {
      list = await products();
      trouble.hidden = true;
    } catch (error) {
      trouble.textContent = error.message;
      trouble.hidden = false;
    }
    const focused = document.activeElement?.name === group;
    chips.replaceChildren(...list.map(chip));
    if (before !== undefined) for (const input of chips.querySelectorAll("input")) input.checked = input.value === before;
    if (focused) chips.querySelector("input:checked")?.focus();
  }

  function chip(product) {
    const input = el("input", { type: "radio", name: group, value: product.name });
    const count = counts && product.images ? el("b", { "aria-label": `${product.images} photos` }, String(product.images)) : null;
    return el("label", { class: "chip" }, input, el("span", {}, product.label, count));
  }

  return { element, value, choose, refresh };
}
