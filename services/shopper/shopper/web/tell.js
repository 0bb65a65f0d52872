// "Not this? Tell us": a wrong or unknown answer becomes a labelled training photo.
import { isKnown, labelOf } from "./answer.js";
import { deliver } from "./courier.js";
import { dialog, el, picture, toast } from "./dom.js";
import * as outbox from "./outbox.js";
import { picker } from "./picker.js";

export async function openTell(entry) {
  const choice = picker("What is it really?", { onchange: (product) => { save.disabled = !product; } });
  const save = el("button", { class: "button primary save", type: "button", disabled: true, onclick: () => keep() }, "Save as training photo");
  const wrong = entry.answer && isKnown(entry.answer) ? `It was taken for ${labelOf(entry.answer)}.` : "The shop does not know it yet.";
  const box = dialog("What is it really?", picture(entry.photo, { class: "photo", alt: "Your photo" }),
    el("p", { class: "soft" }, `${wrong} Your word makes this photo a lesson.`), choice.element, save);
  await choice.refresh();

  async function keep() {
    const product = choice.value();
    save.disabled = true;
    try {
      await outbox.add({ kind: "teach", photo: entry.photo, thumb: entry.thumb, product: product.name, isNew: product.isNew });
      if (entry.answer) await outbox.remember({ ...entry, taught: product.label });
    } catch (error) {
      save.disabled = false;
      toast(error.message);
      return;
    }
    box.close();
    const { trouble } = await deliver();
    const more = { label: "Take more", act: () => { location.hash = `#teach=${encodeURIComponent(product.name)}`; } };
    toast(trouble ? `Kept as ${product.label}; it is sent as soon as the shop answers.` : `Kept as ${product.label}. A few more photos teach it well.`, more);
  }
}
