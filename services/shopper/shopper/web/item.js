// The item of a product's name, as the shop makes it: `shopper/catalogue.py`.

/** Fold letters as Python does, for which ß is ss. */
const folded = (name) => name.normalize("NFKC").toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ").normalize();

/** Make an item of a name: Bali Tea, bali-tea. */
export const slug = (name) => (folded(name).match(/[\p{L}\p{N}][\p{L}\p{M}\p{N}\u200c\u200d]*/gu) ?? []).join("-");
