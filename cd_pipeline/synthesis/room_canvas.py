"""A small renderer for the sample rooms: camera, depth buffer, light, and the look of a phone photo.

World axes: x to the right, y up from the floor, z into the room, in metres; the camera stands at
(0, eye, 0) and looks along z. Everything is drawn at twice the photo's size and averaged down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cd_pipeline.synthesis.room_textures import MIP_LEVELS, Colour, Float, Texture, UInt8, UInt32

Points = npt.NDArray[np.float64]
Vector = tuple[float, float, float]

OVERSAMPLE = 2
CELL = 0.02
"""Side of a cell of a shadow map, in metres."""

_NEAR = 0.2
_BAND = 16  # rows of the photo lit at a time: their arrays stay in the cache


@dataclass(frozen=True)
class Camera:
    """Where the photo is taken from.

    Attributes:
        width: Width of the photo in pixels.
        height: Height of the photo in pixels.
        focal: Focal length in pixels of the photo.
        centre: Vanishing point (x, y) in pixels of the photo.
        eye: Height of the camera above the floor in metres.
        roll: Tilt about the line of sight in radians.
    """

    width: int
    height: int
    focal: float
    centre: tuple[float, float]
    eye: float
    roll: float

    def project(self, points: Points) -> Points:
        """Projects world points (N, 3), all with z > 0, to (N, 2) pixels of the photo."""
        u = points[:, 0] / points[:, 2]
        v = (self.eye - points[:, 1]) / points[:, 2]
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        x = self.centre[0] + self.focal * (cos * u - sin * v)
        y = self.centre[1] + self.focal * (sin * u + cos * v)
        return np.stack([x, y], axis=1)

    def slopes(self, vector: Vector) -> Vector:
        """Returns (a, b, c): `vector` dotted with the ray of enlarged pixel (x, y) is ax + by + c."""
        focal = self.focal * OVERSAMPLE
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        a = (vector[0] * cos + vector[1] * sin) / focal
        b = (vector[0] * sin - vector[1] * cos) / focal
        x, y = (value * OVERSAMPLE for value in self.centre)
        return a, b, vector[2] - a * x - b * y


@dataclass(frozen=True)
class Face:
    """A flat convex polygon with a texture.

    Attributes:
        points: (N, 3) corners in metres. The texture's first row runs from corner 0 to corner 1, its
            first column from corner 0 to the last corner.
        skin: What is laid on it.
        solid: Whether it is part of a closed body, so that its rear is never seen.
        occlusion: Share of light that reaches the face, (H, W) float32 in [0, 1], cells of `CELL` metres
            from corner 0 along the texture's axes; None where nothing stands before it.
        mirrored: Whether this is an image behind a mirror in the far wall.
    """

    points: Points
    skin: Texture
    solid: bool = True
    occlusion: Float | None = None
    mirrored: bool = False


@dataclass(frozen=True)
class Light:
    """A soft point light.

    Attributes:
        position: World position in metres.
        colour: Linear RGB strength.
        reach: Distance at which it falls to half, in metres.
    """

    position: Vector
    colour: Colour
    reach: float


@dataclass(frozen=True)
class Look:
    """How the camera develops the picture.

    Attributes:
        exposure: Mean linear luminance to aim at, in (0, 1).
        balance: Gains of red, green and blue.
        vignette: Share of light lost in the corners.
        softness: Weight of the neighbours in the blur, in [0, 1].
        noise: Standard deviation of the noise in grey levels of 0..255.
    """

    exposure: float
    balance: Colour
    vignette: float
    softness: float
    noise: float


def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(a: Vector) -> Vector:
    length = math.sqrt(_dot(a, a))
    return (a[0] / length, a[1] / length, a[2] / length)


def _between(a: Points, b: Points) -> Vector:
    return (float(b[0] - a[0]), float(b[1] - a[1]), float(b[2] - a[2]))


def _clip_near(points: Points) -> Points:
    """Cuts away the part of a polygon (N, 3) nearer than `_NEAR`."""
    if points[:, 2].min() >= _NEAR:
        return points
    kept = []
    for here, there in zip(points, np.roll(points, -1, axis=0), strict=True):
        if here[2] >= _NEAR:
            kept.append(here)
        if (here[2] >= _NEAR) != (there[2] >= _NEAR):
            kept.append(here + (there - here) * ((_NEAR - here[2]) / (there[2] - here[2])))
    return np.array(kept).reshape(-1, 3)


class _Plane:
    """The plane of a face: depth and texture coordinates as functions of the pixel."""

    def __init__(self, camera: Camera, face: Face) -> None:
        self.camera = camera
        points = face.points
        along, down = _between(points[0], points[1]), _between(points[0], points[-1])
        self.lengths = (math.sqrt(_dot(along, along)), math.sqrt(_dot(down, down)))
        self.normal = _unit(_cross(along, down))
        self._axis_s = _unit(along)
        axis_t = _cross(self.normal, self._axis_s)
        self._axis_t = axis_t if _dot(axis_t, down) > 0 else (-axis_t[0], -axis_t[1], -axis_t[2])
        self._origin: Vector = (float(points[0][0]), float(points[0][1]) - camera.eye, float(points[0][2]))
        self.offset = _dot(self.normal, self._origin)

    def nearness(self, x: Float, y: Float) -> Float:
        """Returns 1/z over a grid of enlarged pixels, (H, W)."""
        a, b, c = (value / self.offset for value in self.camera.slopes(self.normal))
        return (x * np.float32(a))[None, :] + (y * np.float32(b) + np.float32(c))[:, None]

    def coordinates(self, x: Float, y: Float, z: Float) -> tuple[Float, Float]:
        """Returns metres along both texture axes for pixels x, y at depth z, all (N,)."""
        result = []
        for axis in (self._axis_s, self._axis_t):
            a, b, c = self.camera.slopes(axis)
            ray = x * np.float32(a) + y * np.float32(b) + np.float32(c)
            result.append(ray * z - np.float32(_dot(axis, self._origin)))
        return result[0], result[1]


def _texel(skin: Texture, plane: _Plane, level: int, s: Float, t: Float) -> UInt32:
    """Looks the packed colours up at `s`, `t` metres along the axes, (N,)."""
    image = skin.level(level)
    height, width = image.shape
    tile = skin.metres or plane.lengths
    column = np.floor(s * np.float32(width / tile[0])).astype(np.int32)
    row = np.floor(t * np.float32(height / tile[1])).astype(np.int32)
    if skin.metres is None:
        np.clip(column, 0, width - 1, out=column)
        np.clip(row, 0, height - 1, out=row)
    else:
        column &= np.int32(width - 1)
        row &= np.int32(height - 1)
    texels: UInt32 = image.reshape(-1)[row * np.int32(width) + column]
    return texels


class Canvas:
    """Collects faces behind a depth buffer and develops them into a photo.

    Args:
        camera: Where the photo is taken from.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        shape = (camera.height * OVERSAMPLE, camera.width * OVERSAMPLE)
        self._near = np.zeros(shape, np.float32)
        self._colour = np.zeros(shape, np.uint32)
        self._face = np.zeros(shape, np.int32)
        self._open = np.ones(shape, np.float32)
        self.owner = np.zeros(shape, np.uint8)
        self._normals: list[Vector] = [(0.0, 0.0, -1.0)]
        self._glow: list[float] = [0.0]

    def paint(self, faces: list[Face], owner: int = 0, window: UInt8 | None = None) -> int:
        """Draws faces where they are nearer than what is there.

        Args:
            faces: What to draw, in any order.
            owner: Number to write into `owner` (H, W) where a face is visible, at most 255.
            window: (H, W) uint8 in enlarged pixels; drawing is confined to where it is not 0.

        Returns:
            Enlarged pixels that the faces cover, whether or not something nearer hides them.
        """
        cover = np.zeros(self.owner.shape, np.uint8)
        for face in faces:
            self._paint_face(face, owner, cover, window)
        return int(np.count_nonzero(cover))

    def _outline(self, face: Face) -> tuple[npt.NDArray[np.int32], tuple[int, int, int, int]] | None:
        """Projects a face: outline in sixteenths of an enlarged pixel, and bounds; None outside."""
        points = _clip_near(face.points)
        if len(points) < 3:
            return None
        pixels = self.camera.project(points) * OVERSAMPLE
        height, width = self.owner.shape
        left, top = (max(math.floor(v) - 1, 0) for v in pixels.min(axis=0))
        right = min(math.ceil(pixels[:, 0].max()) + 2, width)
        bottom = min(math.ceil(pixels[:, 1].max()) + 2, height)
        if left >= right or top >= bottom:
            return None
        outline = np.rint((pixels - (left, top)) * 16).astype(np.int32)
        return outline, (left, top, right, bottom)

    def _paint_face(self, face: Face, owner: int, cover: UInt8, window: UInt8 | None) -> None:
        plane = _Plane(self.camera, face)
        facing_away = plane.offset >= 0
        if abs(plane.offset) < 1e-6 or (facing_away and face.solid):
            return
        found = self._outline(face)
        if found is None:
            return
        outline, (left, top, right, bottom) = found
        region = (slice(top, bottom), slice(left, right))
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillConvexPoly(mask, outline, 1, cv2.LINE_8, 4)
        if window is not None:
            mask &= window[region]
        x, y = np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32)
        near = plane.nearness(x, y)
        if not face.skin.cutout:
            cover[region] |= mask
            mask &= near > self._near[region]
        chosen = np.flatnonzero(mask)
        if not len(chosen):
            return
        # Faster than divmod: the row numbers of a mask are known from its count in each row.
        rows = np.repeat(np.arange(bottom - top, dtype=np.int32), np.count_nonzero(mask, axis=1))
        columns = chosen.astype(np.int32) - rows * np.int32(right - left)
        depth = near.reshape(-1)[chosen]
        s, t = plane.coordinates(x[columns], y[rows], np.float32(1) / depth)
        colour = _texel(face.skin, plane, self._level(face, plane, outline), s, t)
        where = (rows + np.int32(top)) * np.int32(self.owner.shape[1]) + (columns + np.int32(left))
        if face.skin.cutout:
            seen = (colour >> 24) >= 128
            cover.reshape(-1)[where[seen]] = 1
            seen &= depth > self._near.reshape(-1)[where]
            where, colour, depth, s, t = where[seen], colour[seen], depth[seen], s[seen], t[seen]
        self._near.reshape(-1)[where] = depth
        self._colour.reshape(-1)[where] = colour
        self._face.reshape(-1)[where] = self._register(face, plane.normal, facing_away)
        self.owner.reshape(-1)[where] = owner
        self._open.reshape(-1)[where] = 1 if face.occlusion is None else _sample(face.occlusion, s, t)

    def _level(self, face: Face, plane: _Plane, outline: npt.NDArray[np.int32]) -> int:
        """Chooses the reduced copy with about one texel a pixel."""
        image = face.skin.level(0)
        tile = face.skin.metres or plane.lengths
        texels = plane.lengths[0] * plane.lengths[1] * image.size / (tile[0] * tile[1])
        ahead = np.roll(outline, -1, axis=0).astype(np.int64)
        behind = outline.astype(np.int64)
        area = abs(int((behind[:, 0] * ahead[:, 1] - ahead[:, 0] * behind[:, 1]).sum())) / 512
        ratio = texels / max(area, 1.0)
        return min(max(round(0.5 * math.log2(max(ratio, 1.0))), 0), MIP_LEVELS - 1)

    def _register(self, face: Face, normal: Vector, flip: bool) -> int:
        sign = -1.0 if flip else 1.0
        z = -normal[2] if face.mirrored else normal[2]
        self._normals.append((sign * normal[0], sign * normal[1], sign * z))
        self._glow.append(face.skin.glow)
        return len(self._normals) - 1

    def develop(
        self,
        size: Vector,
        left: float,
        lights: list[Light],
        ambient: Colour,
        look: Look,
        rng: np.random.Generator,
    ) -> UInt8:
        """Lights the picture and makes it look photographed.

        Args:
            size: Width, height and depth (from the camera) of the room in metres.
            left: x of the left wall.
            lights: Lights in the room.
            ambient: Linear RGB light from everywhere.
            look: How the camera develops.
            rng: Source of the sensor noise.

        Returns:
            (height, width, 3) RGB uint8.
        """
        height = self.camera.height
        small = np.empty((height, self.camera.width, 3), np.float32)
        for top in range(0, height, _BAND):
            rows = slice(top * OVERSAMPLE, min(top + _BAND, height) * OVERSAMPLE)
            linear = self._lit(rows, size, left, lights, ambient)
            total = (linear[:, ::2, ::2] + linear[:, 1::2, ::2]) + (
                linear[:, ::2, 1::2] + linear[:, 1::2, 1::2]
            )
            small[top : top + _BAND] = np.moveaxis(total, 0, 2)
        return _photograph(small * np.float32(0.25), look, rng)

    def _lit(self, rows: slice, size: Vector, left: float, lights: list[Light], ambient: Colour) -> Float:
        """Returns linear RGB (3, H, W) float32 of some rows of the enlarged picture."""
        x, y, z = self._positions(rows, size[2])
        faces = self._face[rows]
        normals = np.array(self._normals, np.float32)
        nx, ny, nz = (np.ascontiguousarray(normals[:, axis])[faces] for axis in range(3))
        corner = _corner((x - np.float32(left), np.float32(left + size[0]) - x), nx)
        corner *= _corner((y, np.float32(size[1]) - y), ny)
        corner *= _corner((np.float32(size[2]) - z,), nz)
        corner *= self._open[rows]
        total = [corner * np.float32(ambient[channel]) for channel in range(3)]
        for light in lights:
            dx, dy, dz = (np.float32(p) - q for p, q in zip(light.position, (x, y, z), strict=True))
            square = dx * dx + dy * dy + dz * dz + np.float32(0.01)
            facing = (nx * dx + ny * dy + nz * dz) / np.sqrt(square)
            strength = np.maximum(facing * np.float32(0.8) + np.float32(0.2), 0) * corner
            strength /= 1 + square * np.float32(1 / light.reach**2)
            for channel in range(3):
                total[channel] += strength * np.float32(light.colour[channel])
        glow = np.array(self._glow, np.float32)[faces]
        rgba = self._colour[rows].view(np.uint8).reshape(*faces.shape, 4)
        return np.stack([(total[channel] + glow) * _LINEAR[rgba[..., channel]] for channel in range(3)])

    def _positions(self, rows: slice, depth: float) -> tuple[Float, Float, Float]:
        """Returns world x, y, z (H, W) of some enlarged rows; images behind the far wall fold back."""
        columns = np.arange(self.owner.shape[1], dtype=np.float32)
        lines = np.arange(rows.start, rows.stop, dtype=np.float32)
        z = (np.float32(1) / np.maximum(self._near[rows], np.float32(0.01))).astype(np.float32, copy=False)
        world = []
        for axis in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
            a, b, c = (np.float32(value) for value in self.camera.slopes(axis))
            world.append(((columns * a)[None, :] + (lines * b + c)[:, None]) * z)
        return world[0], world[1] + np.float32(self.camera.eye), np.minimum(z, np.float32(2 * depth) - z)


def _corner(distances: tuple[Float, ...], normal: Float) -> Float:
    """Darkens near walls: (H, W) factor from distances to the walls across one axis."""
    reach, across = np.float32(0.12), 1 - np.abs(normal)
    factor = np.ones_like(normal)
    for distance in distances:
        factor *= 1 - np.float32(0.45) * across * (reach / (reach + np.maximum(distance, 0)))
    return factor


def _sample(grid: Float, s: Float, t: Float) -> Float:
    column = np.clip((s * np.float32(1 / CELL)).astype(np.int32), 0, grid.shape[1] - 1)
    row = np.clip((t * np.float32(1 / CELL)).astype(np.int32), 0, grid.shape[0] - 1)
    light: Float = grid.reshape(-1)[row * np.int32(grid.shape[1]) + column]
    return light


def box_blur(field: npt.NDArray[np.int64], radius: int) -> npt.NDArray[np.int64]:
    """Averages whole numbers over squares of side 2 `radius` + 1, twice; edges are repeated."""
    for axis in (0, 1, 0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(field, pad, mode="edge"), axis=axis)
        span = 2 * radius + 1
        upper, lower = (total[span:], total[:-span]) if axis == 0 else (total[:, span:], total[:, :-span])
        field = (upper - lower) // span
    return field


def _photograph(linear: Float, look: Look, rng: np.random.Generator) -> UInt8:
    """Turns linear light (H, W, 3) float32 into RGB uint8: exposure, bloom, vignette, tone, blur, noise."""
    height, width, _ = linear.shape
    sample = np.minimum(linear[::4, ::4] * 4096, 8192).astype(np.int64)
    gain = look.exposure * 4096 / max(float(sample.sum()) / sample.size, 1.0)
    picture = linear * np.array([gain * value for value in look.balance], np.float32)
    picture += _bloom(picture)
    x = (np.arange(width, dtype=np.float32) - width / 2) / (width / 2)
    y = (np.arange(height, dtype=np.float32) - height / 2) / (height / 2)
    picture *= 1 - np.float32(look.vignette / 2) * ((x * x)[None, :, None] + (y * y)[:, None, None])
    toned = _TONE[np.minimum(picture * np.float32(1024), len(_TONE) - 1).astype(np.int32)]
    toned = _soften(toned, look.softness)
    # Colour noise is coarser than brightness noise, as in a phone's photo.
    coarse = rng.standard_normal(((height + 1) // 2, (width + 1) // 2, 3), dtype=np.float32) * np.float32(0.4)
    grain = coarse.repeat(2, axis=0)[:height].repeat(2, axis=1)[:, :width]
    grain += rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(0.85)
    grain *= np.float32(1.3) - toned * np.float32(1 / 350)
    grain *= np.float32(look.noise)
    toned += grain
    toned += np.float32(0.5)
    np.clip(toned, 0, 255, out=toned)
    return toned.astype(np.uint8)


def _soften(image: Float, amount: float) -> Float:
    """Mixes each pixel of (H, W, C) with its neighbours by a 1-2-1 kernel of weight `amount`."""
    weight = np.float32(amount / 4)
    for axis in (0, 1):
        ahead, behind = (slice(1, None), slice(None, -1)) if axis == 0 else (np.s_[:, 1:], np.s_[:, :-1])
        step = (image[ahead] - image[behind]) * weight
        image = image.copy()
        image[behind] += step
        image[ahead] -= step
    return image


def _bloom(picture: Float) -> Float:
    """Spreads a little of the light above white around it, (H, W, 3)."""
    height, width, _ = picture.shape
    spill = np.maximum(picture[4::8, 4::8] - 1, 0).clip(0, 4)
    blocks = [box_blur((spill[..., c] * 4096).astype(np.int64), 4) for c in range(3)]
    small = np.stack(blocks, axis=-1).astype(np.float32) * np.float32(0.12 / 4096)
    if not small.any():
        return np.zeros_like(picture)
    rows = np.clip((np.arange(height, dtype=np.float32) - 4) / np.float32(8), 0, small.shape[0] - 1)
    columns = np.clip((np.arange(width, dtype=np.float32) - 4) / np.float32(8), 0, small.shape[1] - 1)
    return _stretch(_stretch(small, rows, 0), columns, 1)


def _stretch(image: Float, at: Float, axis: int) -> Float:
    """Interpolates (H, W, C) linearly at the positions `at` along an axis."""
    low = np.floor(at).astype(np.int32)
    high = np.minimum(low + 1, image.shape[axis] - 1)
    weight = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    first, second = np.take(image, low, axis), np.take(image, high, axis)
    blended: Float = first + (second - first) * weight
    return blended


def _linear_table() -> Float:
    """Linear light of each of the 256 sRGB values."""
    values = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in range(256)]
    return np.array([round(v, 6) for v in values], np.float32)


def _tone_table() -> Float:
    """Grey level, 0..255, of linear light in steps of 1/1024 up to 4: soft shoulder, then sRGB."""
    table = []
    for index in range(4096):
        light = index / 1024
        light = light * (1 + light / 5) / (1 + 0.55 * light)
        srgb = 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055
        table.append(round(min(srgb, 1.0) * 255, 3))
    return np.array(table, np.float32)


_LINEAR = _linear_table()
_TONE = _tone_table()
