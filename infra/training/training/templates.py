"""The pages' templates, `pages/*.j2`."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, **facts: Any) -> str:
    """Return a page, filled in.

    Whatever is filled in is escaped: names of classes are whatever folders of a ZIP were called.
    """
    pages = Environment(
        loader=PackageLoader("training", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(name).render(**facts)
