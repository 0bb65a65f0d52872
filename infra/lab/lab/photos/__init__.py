"""Photos of packages that the project makes itself: the same ones for the same seed, on any machine."""

from lab.photos.archive import photo_name, render_zip
from lab.photos.scene import OTHER, PRODUCTS, render

__all__ = ["OTHER", "PRODUCTS", "photo_name", "render", "render_zip"]
