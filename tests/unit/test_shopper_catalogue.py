"""shopper: what items are called and what they cost."""

import json
import unicodedata
from pathlib import Path

import pytest
from pydantic import ValidationError

from caravan.errors import BadInput
from shopper.catalogue import Catalogue, CatalogueFault
from shopper.catalogue_file import CatalogueFile, default
from shopper.price import Price
from shopper.settings import ShopperSettings

GREEN = {"item": "tea-green", "label": "Green Tea", "price": 2.99}


def parsed(*entries: object) -> Catalogue:
    return Catalogue.parse(json.dumps(entries))


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        (2.99, "2.99"),
        ("2.99", "2.99"),
        (3, "3.00"),
        ("0.5", "0.50"),
        (0, "0.00"),
        (0.1, "0.10"),
        ("n/a", "N/A"),
    ],
)
def test_a_price_is_printed_with_two_digits(written: object, printed: str) -> None:
    assert str(parsed(GREEN | {"price": written}).product("tea-green").price) == printed


@pytest.mark.parametrize(
    "written", ["two", "", None, True, -1, 2.999, [], "inf", "NaN", 1e12, "1e999999", "2_99"]
)
def test_a_price_that_is_none_is_refused_with_its_entry(written: object) -> None:
    with pytest.raises(CatalogueFault, match=r"entry 1 \(tea-green\)"):
        parsed(GREEN | {"price": written})


def test_a_price_has_its_currency_only_where_there_is_one() -> None:
    assert Price.parse("1234.5").with_currency == "$1234.50"
    assert Price().with_currency == "N/A"


@pytest.mark.parametrize("item", ["grüner-tee", "green tea", "T-shirt/top", "gru\u0308ner-tee", "緑茶"])
def test_whatever_a_class_is_called_it_can_have_a_price(item: str) -> None:
    catalogue = parsed({"item": item, "label": "Tee für jeden", "price": 2.99})
    assert str(catalogue.product(item).price) == "2.99"
    assert catalogue.product(unicodedata.normalize("NFC", item)) == catalogue.product(item)
    assert catalogue.named("tee fu\u0308r JEDEN") == catalogue.named(item) == catalogue.product(item)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[1]",
        "[{}]",
        '[{"item": "a\\tb", "label": "x", "price": 1}]',
        '[{"item": "", "label": "x", "price": 1}]',
        '[{"item": "\\ud800", "label": "x", "price": 1}]',
        '[{"item": "a", "label": "", "price": 1}]',
        '[{"item": "a", "label": "two\\nlines", "price": 1}]',
        '[{"item": 7, "label": "x", "price": 1}]',
        "[" * 100_000,
    ],
)
def test_a_broken_catalogue_is_refused(text: str) -> None:
    with pytest.raises(CatalogueFault):
        Catalogue.parse(text)


def test_two_entries_of_one_item_are_refused() -> None:
    with pytest.raises(CatalogueFault, match="item tea-green"):
        parsed(GREEN, GREEN | {"label": "Another"})


def test_two_entries_of_one_label_are_refused() -> None:
    with pytest.raises(CatalogueFault, match="label green tea"):
        parsed(GREEN, {"item": "another", "label": "GREEN TEA", "price": 1})


def test_other_is_always_there() -> None:
    assert parsed(GREEN).labels == ["Green Tea", "Other"]
    assert parsed(GREEN).other.pricetag == "Other: N/A"


def test_the_default_catalogue_has_the_four_teas() -> None:
    assert [product.pricetag for product in default().products if product.item.startswith("tea-")] == [
        "Earl Grey Tea: 3.99",
        "Green Tea: 2.99",
        "Lemon Tea: 4.99",
        "Licorice Tea: 2.49",
    ]
    assert default().labels[-1] == "Other"


def test_other_is_itself_in_any_letter_case() -> None:
    catalogue = parsed({"item": "Other", "label": "Nothing here", "price": "N/A"})
    assert catalogue.labels == ["Nothing here"]
    assert catalogue.product("OTHER") == catalogue.other


def test_an_item_without_an_entry_is_its_own_label_and_has_no_price() -> None:
    assert parsed(GREEN).product("tea-mint").pricetag == "tea-mint: N/A"


@pytest.mark.parametrize("name", ["Green Tea", "green tea", " GREEN TEA ", "tea-green"])
def test_a_product_is_found_by_label_or_item_in_any_letter_case(name: str) -> None:
    assert parsed(GREEN).named(name).item == "tea-green"


def test_an_unknown_product_is_refused_with_the_list_of_what_there_is() -> None:
    with pytest.raises(BadInput, match="Green Tea, Other") as caught:
        parsed(GREEN).named("Mint Tea")
    assert caught.value.status == 422


# --- the file ---------------------------------------------------------------------------------------


def write(path: Path, entries: object) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    aside.replace(path)


async def test_an_edited_catalogue_is_taken_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    write(path, [GREEN])
    catalogue_file = CatalogueFile(path)
    write(path, [GREEN | {"price": 3.49}])
    await catalogue_file.look()
    assert catalogue_file.catalogue.product("tea-green").pricetag == "Green Tea: 3.49"


async def test_a_broken_edit_is_refused_and_the_next_good_one_taken(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    write(path, [GREEN])
    catalogue_file = CatalogueFile(path)
    write(path, "[{")
    await catalogue_file.look()
    assert catalogue_file.catalogue.product("tea-green").pricetag == "Green Tea: 2.99"
    write(path, [GREEN | {"price": 1}])
    await catalogue_file.look()
    assert catalogue_file.catalogue.product("tea-green").pricetag == "Green Tea: 1.00"


async def test_a_catalogue_that_goes_away_leaves_the_last_good_one(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    write(path, [GREEN])
    catalogue_file = CatalogueFile(path)
    path.unlink()
    await catalogue_file.look()
    assert catalogue_file.catalogue.labels == ["Green Tea", "Other"]


def test_a_broken_catalogue_at_the_start_is_named_among_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    write(path, "[{")
    with pytest.raises(ValidationError, match="not JSON"):
        ShopperSettings(catalogue=path)
    with pytest.raises(ValidationError, match="No such file"):
        ShopperSettings(catalogue=tmp_path / "none.json")
