"""Things with a printed skin: boxes and turned shapes, as textured faces, and how a camera draws them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from lab.photos.camera import Array, Camera, homography

SUPERSAMPLING = 2
PAD = 2


@dataclass(frozen=True, slots=True)
class Light:
    """One lamp, far away: `towards` `[3]` points at it; both strengths are fractions of full brightness."""

    towards: Array
    ambient: float
    diffuse: float

    def shade(self, normals: Array) -> Array:
        """Return the brightness `[N]` of surfaces with unit normals `[N, 3]`."""
        lit = np.clip(normals @ self.towards, 0, None)
        # Light that the table throws back keeps undersides and far sides from going black.
        return np.asarray(self.ambient + self.diffuse * lit + 0.06 * np.clip(-normals[:, 2], 0, None))


@dataclass(frozen=True, slots=True)
class Face:
    """A quadrilateral: corners `[4, 3]` clockwise from top left as seen from outside, with their normals."""

    texture: Image.Image
    corners: Array
    normals: Array


@dataclass(frozen=True, slots=True)
class Solid:
    """Faces around a centre of their own, on or over the plane z = 0."""

    faces: tuple[Face, ...]

    def placed(self, turn: Array, x: float, y: float) -> "Solid":
        """Turn the solid by the rotation `[3, 3]`, set it down on the table and move it to `x`, `y` (cm)."""
        turned = [f.corners @ turn.T for f in self.faces]
        lowest = min(float(c[:, 2].min()) for c in turned)
        shift = np.array([x, y, -lowest])
        return Solid(
            tuple(
                Face(f.texture, c + shift, f.normals @ turn.T)
                for f, c in zip(self.faces, turned, strict=True)
            )
        )

    def points(self) -> Array:
        """Return every corner, `[N, 3]`."""
        return np.concatenate([f.corners for f in self.faces])


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> Array:
    """Return the rotation `[3, 3]` that rolls about y, then pitches about x, then yaws about z (radians)."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cr, 0, sr], [0, 1, 0], [-sr, 0, cr]])
    return np.asarray(about_z @ about_x @ about_y)


def box(width: float, depth: float, height: float, skins: Sequence[Image.Image]) -> Solid:
    """Build a box in cm; `skins` are front (towards -y), right, back, left, top and bottom."""
    x, y, z = width / 2, depth / 2, height / 2
    quads = (
        ((-x, -y, z), (x, -y, z), (x, -y, -z), (-x, -y, -z)),
        ((x, -y, z), (x, y, z), (x, y, -z), (x, -y, -z)),
        ((x, y, z), (-x, y, z), (-x, y, -z), (x, y, -z)),
        ((-x, y, z), (-x, -y, z), (-x, -y, -z), (-x, y, -z)),
        ((-x, y, z), (x, y, z), (x, -y, z), (-x, -y, z)),
        ((-x, -y, -z), (x, -y, -z), (x, y, -z), (-x, y, -z)),
    )
    outward = ((0, -1, 0), (1, 0, 0), (0, 1, 0), (-1, 0, 0), (0, 0, 1), (0, 0, -1))
    return Solid(
        tuple(
            Face(skin, np.array(quad, float), np.tile(np.array(normal, float), (4, 1)))
            for skin, quad, normal in zip(skins, quads, outward, strict=True)
        )
    )


def turned_shape(
    profile: Sequence[tuple[float, float]],
    skins: Sequence[Image.Image],
    ends: tuple[Image.Image, Image.Image] | None,
    strips: int = 20,
) -> Solid:
    """Build a shape off the lathe: `profile` is (height, radius) in cm from top to bottom, a skin per step.

    A skin goes once around; `ends` close the top and the bottom, square faces whose textures hold a disc.
    """
    angles = np.linspace(0, 2 * math.pi, strips + 1)
    ring = np.column_stack([np.sin(angles), -np.cos(angles), np.zeros(strips + 1)])
    steep = _steepness(profile)
    rims = [ring * r + np.array([0, 0, z]) for z, r in profile]
    normals = [ring * math.cos(s) + np.array([0, 0, math.sin(s)]) for s in steep]
    faces: list[Face] = []
    for k, skin in enumerate(skins):
        step = skin.width / strips
        for i in range(strips):
            piece = skin.crop((int(i * step), 0, max(int((i + 1) * step), int(i * step) + 1), skin.height))
            around = ((k, i), (k, i + 1), (k + 1, i + 1), (k + 1, i))
            faces.append(
                Face(
                    piece,
                    np.stack([rims[a][b] for a, b in around]),
                    np.stack([normals[a][b] for a, b in around]),
                )
            )
    if ends is not None:
        for disc, (z, r), up in zip(ends, (profile[0], profile[-1]), (1.0, -1.0), strict=True):
            corners = np.array([(-r, r * up, z), (r, r * up, z), (r, -r * up, z), (-r, -r * up, z)])
            faces.append(Face(disc, corners, np.tile(np.array([0.0, 0.0, up]), (4, 1))))
    return Solid(tuple(faces))


def _steepness(profile: Sequence[tuple[float, float]]) -> list[float]:
    """Return how far the surface faces upwards at each height (radians): the mean of the steps that meet."""
    steps = [math.atan2(low[1] - top[1], max(top[0] - low[0], 1e-6)) for top, low in pairwise(profile)]
    return [(a + b) / 2 for a, b in zip([steps[0], *steps], [*steps, steps[-1]], strict=True)]


def draw(solid: Solid, camera: Camera, light: Light, onto: Image.Image) -> None:
    """Draw a solid into the picture `onto` (mode RGB, of the camera's size), nearest faces last."""
    large = camera.scaled(SUPERSAMPLING)
    visible: list[tuple[float, Face, Array]] = []
    for face in solid.faces:
        outward = face.normals.mean(axis=0)
        if float((face.corners.mean(axis=0) - camera.eye) @ outward) >= 0:
            continue
        pixels, depth = large.project(face.corners)
        if depth.min() > 1:
            visible.append((float(depth.mean()), face, pixels))
    if not visible:
        return
    window = _window([p for _, _, p in visible], onto.size)
    if window is None:
        return
    left, top, right, bottom = window
    origin = np.array([left, top]) * SUPERSAMPLING
    size = ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING)
    layer = Image.new("RGBA", size)
    for _, face, pixels in sorted(visible, key=lambda seen: -seen[0]):
        _draw_face(face, pixels - origin, light, layer)
    layer = layer.reduce(SUPERSAMPLING)
    onto.paste(layer, (left, top), layer)


def cast_shadow(solids: Iterable[Solid], camera: Camera, light: Light) -> Image.Image:
    """Return the shadows on the table as a mask with hard edges (mode L, of the camera's size)."""
    mask = Image.new("L", camera.size)
    pen = ImageDraw.Draw(mask)
    slope = light.towards[:2] / max(light.towards[2], 0.25)
    for solid in solids:
        points = np.unique(np.round(solid.points(), 3), axis=0)
        fallen = points.copy()
        fallen[:, :2] -= points[:, 2:] * slope
        fallen[:, 2] = 0
        pixels, depth = camera.project(fallen)
        if depth.min() > 1:
            pen.polygon([(float(x), float(y)) for x, y in _hull(pixels)], fill=255)
    return mask


def _window(outlines: list[Array], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return the part of the picture (left, top, right, bottom) that the outlines touch."""
    points = np.concatenate(outlines) / SUPERSAMPLING
    left, top = (max(math.floor(v) - 1, 0) for v in points.min(axis=0))
    right, bottom = (min(math.ceil(v) + 1, s) for v, s in zip(points.max(axis=0), size, strict=True))
    return (left, top, right, bottom) if right > left and bottom > top else None


def _draw_face(face: Face, pixels: Array, light: Light, layer: Image.Image) -> None:
    """Warp one shaded face to its four `pixels` `[4, 2]` in the layer."""
    left, top = (max(math.floor(v) - 1, 0) for v in pixels.min(axis=0))
    right, bottom = (min(math.ceil(v) + 1, s) for v, s in zip(pixels.max(axis=0), layer.size, strict=True))
    if right <= left or bottom <= top:
        return
    span = np.linalg.norm(np.roll(pixels, -1, axis=0) - pixels, axis=1)
    skin = _fitted(face.texture, max(span[0], span[2]), max(span[1], span[3]))
    skin = _padded(_shaded(skin, light.shade(face.normals)))
    width, height = skin.size
    inner = np.array(
        [(PAD, PAD), (width - PAD, PAD), (width - PAD, height - PAD), (PAD, height - PAD)], dtype=float
    )
    local = pixels - np.array([left, top])
    try:
        coefficients = homography(local, inner)
    except np.linalg.LinAlgError:  # seen exactly edge-on: nothing to draw
        return
    size = (right - left, bottom - top)
    warped = skin.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in local], fill=255, outline=255)
    if warped.mode == "RGBA":
        mask = ImageChops.multiply(mask, warped.getchannel("A"))
    warped.putalpha(255)
    layer.paste(warped, (left, top), mask)


def _fitted(texture: Image.Image, width: float, height: float) -> Image.Image:
    """Shrink a texture that is much finer than the pixels it will cover, so that it does not flicker."""
    factor = min(texture.width / max(width, 1), texture.height / max(height, 1))
    whole = min(int(factor), texture.width // 2, texture.height // 2)
    return texture.reduce(whole) if whole > 1 else texture


def _shaded(texture: Image.Image, corners: Array) -> Image.Image:
    """Multiply a texture by the brightness of its four corners, blended between them."""
    tl, tr, br, bl = np.clip(corners * 255, 0, 255).astype(np.uint8)
    small = Image.fromarray(np.array([[tl, tr], [bl, br]], dtype=np.uint8))
    shade = small.resize(texture.size, Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))
    shaded = ImageChops.multiply(texture.convert("RGB"), Image.merge("RGB", (shade, shade, shade)))
    if texture.mode == "RGBA":
        shaded.putalpha(texture.getchannel("A"))
    return shaded


def _padded(texture: Image.Image) -> Image.Image:
    """Repeat the border pixels outwards, so that sampling at an edge finds paint and not black."""
    width, height = texture.size
    padded = texture.resize((width + 2 * PAD, height + 2 * PAD), Image.Resampling.NEAREST)
    padded.paste(texture, (PAD, PAD))
    return padded


def _hull(points: Array) -> Array:
    """Return the convex hull of `[N, 2]` points (Andrew's monotone chain)."""
    ordered = points[np.lexsort((points[:, 1], points[:, 0]))]

    def half(path: Array) -> list[Array]:
        chain: list[Array] = []
        for point in path:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-1] - chain[-2], point - chain[-2]
                if ax * by - ay * bx > 0:
                    break
                chain.pop()
            chain.append(point)
        return chain

    return np.array(half(ordered)[:-1] + half(ordered[::-1])[:-1])
