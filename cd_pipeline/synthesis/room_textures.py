"""Procedural surfaces of the sample rooms: wood, plaster, carpet, brick and the like.

Pixels are made with elementwise arithmetic and integer drawing only, so that they do not depend on the
vector instructions of the machine.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Colour = tuple[float, float, float]
UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]
Float = npt.NDArray[np.float32]

MIP_LEVELS = 5
"""Sizes in which a texture is kept: the picture and its halvings."""


class Texture:
    """A picture to lay on a face, with its reduced copies, made when asked for.

    Args:
        image: (H, W, 3) RGB or (H, W, 4) RGBA uint8; H and W multiples of 16.
        metres: Width of a tile in metres (the height follows), or None to stretch it over the face.
        glow: Light that the surface gives off, in units of its own colour; 0 for none.

    Raises:
        ValueError: A tile's sides are not powers of two.

    Attributes:
        metres: Width and height of one tile in metres, or None.
        glow: As given.
        cutout: Whether pixels with alpha below 128 are holes: so where the picture has four channels.
    """

    def __init__(self, image: UInt8, metres: float | None = None, glow: float = 0.0) -> None:
        height, width, channels = image.shape
        if metres is not None and (height & (height - 1) or width & (width - 1)):
            raise ValueError(f"a tile is {width}x{height}; both sides must be powers of two")
        self.metres = None if metres is None else (metres, metres * height / width)
        self.glow = glow
        self.cutout = channels == 4
        rgba = np.full((height, width, 4), 255, np.uint8)
        rgba[..., :channels] = image
        self._levels = [rgba.view(np.uint32)[..., 0]]

    def level(self, number: int) -> UInt32:
        """Returns the picture halved `number` times, below `MIP_LEVELS`: packed RGBA, (H, W) uint32."""
        while len(self._levels) <= number:
            last = self._levels[-1]
            wide = last.view(np.uint8).reshape(*last.shape, 4).astype(np.uint16)
            total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
            rgba = np.ascontiguousarray((total + 2) // 4, np.uint8)
            self._levels.append(rgba.view(np.uint32)[..., 0])
        return self._levels[number]


def cloud(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> Float:
    """Draws smooth tileable noise.

    Args:
        rng: Source of randomness.
        size: Height and width of the result, multiples of `cells`.
        cells: Bumps down and across.

    Returns:
        (H, W) float32 in [-1, 1].
    """
    field: Float = rng.random(cells, dtype=np.float32) * np.float32(2) - np.float32(1)
    for axis in (0, 1):
        step = size[axis] // cells[axis]
        ramp = (np.arange(step, dtype=np.float32) + np.float32(0.5)) / np.float32(step)
        ramp = ramp * ramp * (np.float32(3) - np.float32(2) * ramp)
        left = np.expand_dims(field, axis + 1)
        right = np.expand_dims(np.roll(field, -1, axis), axis + 1)
        blend = ramp.reshape((1, step, 1) if axis == 0 else (1, 1, step))
        shape = (size[0], field.shape[1]) if axis == 0 else size
        field = (left + (right - left) * blend).reshape(shape)
    return field


def tint(colour: Colour, factor: npt.NDArray[np.floating]) -> UInt8:
    """Multiplies a colour by a factor for each pixel.

    Args:
        colour: RGB in [0, 255].
        factor: (H, W) float, 1 leaves the colour as it is.

    Returns:
        (H, W, 3) RGB uint8.
    """
    levels: Float = factor.astype(np.float32)[..., None] * np.array(colour, np.float32)
    np.clip(levels, 0, 255, out=levels)
    return levels.astype(np.uint8)


def shade(colour: Colour, factor: float) -> Colour:
    """Returns a colour, RGB in [0, 255], made darker or lighter by a factor."""
    return (min(colour[0] * factor, 255.0), min(colour[1] * factor, 255.0), min(colour[2] * factor, 255.0))


class Surfaces:
    """Makes the surfaces of one room out of a common stock of noise.

    Attributes:
        rng: Source of randomness.
        accent: A number in [0, 1) that pieces of one set share, so that they match in colour.

    Args:
        rng: Source of randomness; the surfaces depend on the order of the calls.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.accent = float(rng.random())
        size = (256, 256)
        self._soft = cloud(rng, size, (4, 4)) * 0.6 + cloud(rng, size, (16, 16)) * 0.4
        self._fine = cloud(rng, size, (64, 64)) * 0.5 + cloud(rng, size, (256, 256)) * 0.5
        self._streak = cloud(rng, size, (64, 4)) * 0.6 + cloud(rng, size, (256, 8)) * 0.4

    def _moved(self, field: Float) -> Float:
        shift = self.rng.integers(0, 256, 2)
        return np.roll(field, (int(shift[0]), int(shift[1])), (0, 1))

    def plain(self, colour: Colour, rough: float = 0.05) -> Texture:
        """Makes paint or plastic of an RGB colour, with dirt and grain of relative strength `rough`."""
        factor = 1 + rough * (self._moved(self._soft) + self._moved(self._fine))
        return Texture(tint(colour, factor), 0.9)

    def wood(self, colour: Colour, strength: float = 0.22) -> Texture:
        """Makes a board of an RGB colour with grain of relative strength `strength` along its width."""
        rings = self._moved(self._soft) * 9 + self._moved(self._streak) * 1.2
        veins = np.abs(rings - np.floor(rings) - 0.5) * 2
        factor = 1 + strength * (self._moved(self._streak) * 0.9 + veins * 0.6 - 0.3)
        return Texture(tint(colour, factor), 0.8)

    def fabric(self, colour: Colour) -> Texture:
        """Makes woven cloth of an RGB colour."""
        y, x = np.indices((256, 256), dtype=np.int32)
        weave = np.where((x // 2 + y // 2) % 2 == 0, np.float32(0.1), np.float32(-0.1))
        factor = 1 + weave + 0.12 * self._moved(self._fine) + 0.1 * self._moved(self._soft)
        return Texture(tint(colour, factor), 0.5)

    def drape(self, colour: Colour) -> Texture:
        """Makes hanging cloth of an RGB colour in soft folds, 2 m of it a tile."""
        turn = (
            np.arange(256, dtype=np.float32) / 256 * 9
            + self._moved(self._soft)[:1] * 0.5
            + self._moved(self._soft) * 0.06
        )
        fold = np.abs(turn - np.floor(turn) - 0.5) * 2
        factor = 0.55 + 0.75 * fold * fold * (3 - 2 * fold) + 0.12 * self._moved(self._fine)
        return Texture(tint(colour, factor), 2.0)

    def metal(self, colour: Colour = (150, 152, 156)) -> Texture:
        """Makes brushed metal of an RGB colour."""
        return Texture(tint(colour, 1 + 0.14 * self._moved(self._streak)), 0.5)

    def carpet(self, colour: Colour) -> Texture:
        """Makes short pile of an RGB colour, flecked, in faint tiles of half a metre."""
        factor = 1 + 0.3 * self._moved(self._fine) + 0.08 * self._moved(self._soft)
        image = tint(colour, np.tile(factor, (2, 2)))
        image[::128] //= 8
        image[::128] *= 7
        fleck = self.rng.integers(0, 512, (2, 700))
        image[fleck[0], fleck[1]] = np.clip(np.array(colour, np.float32) * 1.5 + 15, 0, 255).astype(np.uint8)
        return Texture(image, 2.0)

    def planks(self, colour: Colour, row: int = 32) -> Texture:
        """Makes a floor of boards of an RGB colour; a board is `row` of 512 texels wide: 11 cm at 32."""
        image = np.empty((512, 512, 3), np.uint8)
        for top in range(0, 512, row):
            grain = np.tile(self._moved(self._streak)[:row], (1, 2))
            cut, tone = int(self.rng.integers(32, 480)), self.rng.uniform(0.82, 1.12, 2)
            board = 1 + 0.22 * grain + 0.08 * np.tile(self._moved(self._soft)[:row], (1, 2))
            board[:, :cut] *= np.float32(tone[0])
            board[:, cut:] *= np.float32(tone[1])
            board[:, cut : cut + 2] *= np.float32(0.55)
            board[:2] *= np.float32(0.6)
            image[top : top + row] = tint(colour, board)
        return Texture(image, 1.8)

    def concrete(self, colour: Colour) -> Texture:
        """Makes a poured floor of an RGB colour with stains and hairline cracks."""
        big = cloud(self.rng, (512, 512), (8, 8)) * 0.6 + cloud(self.rng, (512, 512), (32, 32)) * 0.4
        image = tint(colour, 1 + 0.13 * big + 0.1 * np.tile(self._moved(self._fine), (2, 2)))
        for _ in range(4):
            walk = np.cumsum(self.rng.integers(-14, 15, (24, 2)), axis=0) + self.rng.integers(100, 412, 2)
            cv2.polylines(image, [walk.astype(np.int32)], False, shade(colour, 0.72), 1, cv2.LINE_AA)
        return Texture(image, 2.6)

    def brick(self, colour: Colour) -> Texture:
        """Makes a brick wall of an RGB colour, courses 7.5 cm high, in mortar."""
        mortar = 1 + 0.1 * np.tile(self._fine, (2, 2))
        image = tint(shade(colour, 1.25) if sum(colour) > 500 else (176, 170, 160), mortar)
        for course in range(16):
            for column in range(8):
                tone = shade(colour, float(self.rng.uniform(0.78, 1.14)))
                factor = 1 + 0.16 * self._moved(self._fine)[:28, :60]
                left = column * 64 + (course % 2) * 32
                columns = np.arange(left, left + 60) % 512
                image[course * 32 : course * 32 + 28, columns] = tint(tone, factor)
        return Texture(image, 1.2)

    def plaster(self, colour: Colour) -> Texture:
        """Makes a painted wall of an RGB colour with roller marks."""
        factor = 1 + 0.045 * np.tile(self._moved(self._fine), (2, 2))
        factor = factor + 0.03 * cloud(self.rng, (512, 512), (8, 8))
        return Texture(tint(colour, factor), 1.9)

    def wallpaper(self, colour: Colour, other: Colour) -> Texture:
        """Makes striped wallpaper of two RGB colours with a small ornament."""
        image = tint(colour, 1 + 0.05 * self._moved(self._fine))
        width = int(self.rng.choice([16, 32, 64]))
        stripes = (np.arange(256) // width) % 2 == 1
        image[:, stripes] = tint(other, 1 + 0.05 * self._moved(self._fine))[:, stripes]
        for y in range(16, 256, 64):
            for x in range(width // 2, 256, 2 * width):
                cv2.ellipse(image, (x, y), (5, 9), 0, 0, 360, shade(other, 0.85), -1, cv2.LINE_AA)
                cv2.circle(image, (x, y + 14), 3, shade(other, 1.1), -1, cv2.LINE_AA)
        return Texture(image, 0.9)

    def foam(self, colour: Colour) -> Texture:
        """Makes acoustic foam of an RGB colour: squares of wedges, alternately upright and lying."""
        ramp = np.abs(np.arange(64) % 16 - 8).astype(np.float32) / 8
        upright = np.tile(ramp, (64, 1))
        block = np.block([[upright, upright.T], [upright.T, upright]]).astype(np.float32)
        factor = 0.55 + 0.6 * np.tile(block, (2, 2)) + 0.12 * self._fine
        factor[::64] = factor[:, ::64] = 0.35
        return Texture(tint(colour, factor), 1.2)

    def tiles(self, colour: Colour) -> Texture:
        """Makes ceiling panels of 60 cm of an RGB colour with pinholes and a metal grid."""
        image = tint(colour, 1 + 0.06 * self._moved(self._fine))
        holes = self.rng.integers(0, 256, (2, 900))
        image[holes[0], holes[1]] = np.clip(np.array(colour, np.float32) * 0.72, 0, 255).astype(np.uint8)
        image[:3] = image[:, :3] = np.clip(np.array(colour, np.float32) * 0.85, 0, 255).astype(np.uint8)
        return Texture(image, 0.6)
