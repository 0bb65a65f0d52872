"""The catalogue: what an item is called and what it costs. Pure: `catalogue_file.py` watches the file."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from caravan import names, strict_json
from caravan.contracts import OTHER
from caravan.errors import BadInput, Permanent
from caravan.strict_json import NotJson
from shopper.price import Price

MAX_LABEL = 100


class CatalogueFault(Permanent):
    """A catalogue that cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Product:
    """One entry: `item` is the class that a model answers, `label` its name for people."""

    item: str
    label: str
    price: Price

    @property
    def pricetag(self) -> str:
        """`Green Tea: 2.99`."""
        return f"{self.label}: {self.price}"


@dataclass(frozen=True)
class Catalogue:
    """Products in the order of their file, with unique items and labels; `other` is always among them.

    Raises:
        CatalogueFault: if two products share an item or a label.

    """

    products: tuple[Product, ...]
    _items: dict[str, Product] = field(init=False, repr=False, compare=False)
    _names: dict[str, Product] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _refuse_twins("item", (_folded(product.item) for product in self.products))
        _refuse_twins("label", (_folded(product.label) for product in self.products))
        if all(product.item != OTHER for product in self.products):
            object.__setattr__(self, "products", (*self.products, Product(OTHER, "Other", Price())))
        object.__setattr__(self, "_items", {product.item: product for product in self.products})
        by_item = {_folded(product.item): product for product in self.products}
        by_label = {_folded(product.label): product for product in self.products}
        object.__setattr__(self, "_names", by_item | by_label)

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read a JSON list of `{"item", "label", "price"}`.

        Raises:
            CatalogueFault: if it is anything else; names the entry.

        """
        try:
            entries = strict_json.loads(text)
        except NotJson as exc:
            raise CatalogueFault(f"the catalogue is not JSON: {exc}") from exc
        if not isinstance(entries, list):
            raise CatalogueFault("the catalogue is not a JSON list")
        return cls(tuple(_product(number, entry) for number, entry in enumerate(entries, 1)))

    @property
    def labels(self) -> list[str]:
        """Every label, `Other` included."""
        return [product.label for product in self.products]

    @property
    def other(self) -> Product:
        """The entry of unknown things."""
        return self._items[OTHER]

    def product(self, item: str) -> Product:
        """Return the entry of an item; an unknown item is its own label and has no price."""
        name = names.as_class(item)
        return self._items.get(name) or Product(name, name, Price())

    def named(self, name: str) -> Product:
        """Return the product of a label or an item, in any letter case.

        Raises:
            BadInput: 422 if there is none; lists what there is.

        """
        product = self._names.get(_folded(name))
        if product is None:
            message = f"{name[:MAX_LABEL]!r} is not in the catalogue; there are: {', '.join(self.labels)}"
            raise BadInput(message, status=422)
        return product

    def named_or_new(self, name: str) -> Product:
        """Return the product with this name, or a new one whose item is derived from it.

        Raises:
            BadInput: 422 if no item can be made of it.

        """
        item = slug(name)
        if not item:
            most = f"at most {MAX_LABEL} characters and {names.FILE_BYTES} bytes"
            message = f"a product's name has letters or digits, {most}"
            raise BadInput(message, status=422, reason="product-name")
        return self._names.get(_folded(name)) or self._names.get(item) or self.product(item)


def slug(name: str) -> str:
    """Return `bali-tea` for `Bali Tea`: safe in a key and as a class; empty where there can be none.

    Marks belong to the letters before them: in many scripts they are the vowels. Nothing is cut off: two
    products must not become one.
    """
    plain = names.normal(unicodedata.normalize("NFKC", name).casefold())
    kinds = "".join("M" if letter in names.JOINERS else unicodedata.category(letter)[0] for letter in plain)
    item = "-".join(plain[word.start() : word.end()] for word in re.finditer("[LN][LMN]*", kinds))
    return item if len(name) <= MAX_LABEL and names.is_folder(item) else ""


def _product(number: int, entry: Any) -> Product:
    if not isinstance(entry, dict):
        raise CatalogueFault(f"entry {number} of the catalogue is not an object")
    item, label = entry.get("item"), entry.get("label")
    item = names.as_class(item) if isinstance(item, str) else ""
    if not names.is_class(item):
        raise CatalogueFault(f"entry {number}: an item is the name of a class, and {names.CLASS_RULE}")
    label = names.normal(label) if isinstance(label, str) else ""
    if not 0 < len(label) <= MAX_LABEL or not names.is_printable(label):
        raise CatalogueFault(f"entry {number} ({item}): a label is 1 to {MAX_LABEL} printable characters")
    try:
        price = Price.parse(entry.get("price"))
    except ValueError as exc:
        raise CatalogueFault(f"entry {number} ({item}): {exc}") from exc
    return Product(item, label, price)


def _folded(name: str) -> str:
    return names.normal(name).casefold()


def _refuse_twins(what: str, values: Iterable[str]) -> None:
    twins = sorted(value for value, count in Counter(values).items() if count > 1)
    if twins:
        raise CatalogueFault(f"the catalogue has more than one entry with the {what} {', '.join(twins)}")
