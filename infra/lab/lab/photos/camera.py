"""A pinhole camera over a table top: world points in centimetres (z up), pictures in pixels (y down)."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NEAR_CM = 1.0


@dataclass(frozen=True, slots=True)
class Camera:
    """Where the phone is held and how it is turned.

    `eye` is `[3]` in centimetres; the rows of `axes` `[3, 3]` are the picture's right, its down and the line
    of sight; `focal` is in pixels; `size` is width and height in pixels.
    """

    eye: Array
    axes: Array
    focal: float
    size: tuple[int, int]

    @classmethod
    def looking_at(
        cls,
        target: Array,
        *,
        distance: float,
        azimuth: float,
        elevation: float,
        roll: float,
        focal: float,
        size: tuple[int, int],
    ) -> Self:
        """Hold the camera `distance` cm from `target`, angles in radians; azimuth 0 looks along +y."""
        away = np.array(
            [
                math.sin(azimuth) * math.cos(elevation),
                -math.cos(azimuth) * math.cos(elevation),
                math.sin(elevation),
            ]
        )
        forward = -away
        right = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
        down = np.cross(forward, right)
        turned = right * math.cos(roll) + down * math.sin(roll)
        return cls(
            eye=target + away * distance,
            axes=np.stack([turned, np.cross(forward, turned), forward]),
            focal=focal,
            size=size,
        )

    def scaled(self, factor: int) -> "Camera":
        """Return the same view in a picture `factor` times as large."""
        width, height = self.size
        return Camera(self.eye, self.axes, self.focal * factor, (width * factor, height * factor))

    def project(self, points: Array) -> tuple[Array, Array]:
        """Project `[N, 3]` world points to pixels `[N, 2]` and their depths `[N]` in centimetres."""
        seen = (points - self.eye) @ self.axes.T
        depth = np.maximum(seen[:, 2], NEAR_CM)
        centre = np.array(self.size) / 2
        return seen[:, :2] / depth[:, None] * self.focal + centre, seen[:, 2]

    def table_from_picture(self) -> Array:
        """Return the homography `[3, 3]` from homogeneous pixels to the plane z = 0.

        Its third coordinate is positive for pixels below the horizon.
        """
        width, height = self.size
        intrinsic = np.array([[self.focal, 0, width / 2], [0, self.focal, height / 2], [0, 0, 1]])
        to_picture = intrinsic @ np.column_stack([self.axes[:, 0], self.axes[:, 1], -self.axes @ self.eye])
        inverse: Array = np.linalg.inv(to_picture)
        # The sign is fixed by the point of the table that the camera is nearest to: it is in front.
        probe = to_picture @ np.array([self.eye[0] + self.axes[2, 0], self.eye[1] + self.axes[2, 1], 1.0])
        back = inverse @ probe
        return inverse if back[2] * probe[2] > 0 else -inverse


def homography(source: Array, target: Array) -> tuple[float, ...]:
    """Return Pillow's eight coefficients that take `source` `[4, 2]` to `target` `[4, 2]`."""
    rows = np.zeros((8, 8))
    for i, ((x, y), (u, v)) in enumerate(zip(source, target, strict=True)):
        rows[2 * i] = [x, y, 1, 0, 0, 0, -u * x, -u * y]
        rows[2 * i + 1] = [0, 0, 0, x, y, 1, -v * x, -v * y]
    return tuple(float(c) for c in np.linalg.solve(rows, target.reshape(8)))
