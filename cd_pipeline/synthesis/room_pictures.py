"""Pictures laid on the furniture of the sample rooms: books, keys, screens, views, posters, leaves.

Each function draws one (H, W, 3) or (H, W, 4) uint8 picture, sides multiples of 16, and returns it as a
stretched texture; four channels mean that alpha 0 is a hole.
"""

from __future__ import annotations

import cv2
import numpy as np

from cd_pipeline.synthesis.room_textures import Colour, Texture, UInt8, cloud, shade, tint

_BRIGHT: tuple[Colour, ...] = (
    (178, 58, 48), (52, 92, 150), (226, 178, 70), (62, 120, 82), (120, 70, 130),
    (222, 214, 198), (40, 44, 52), (206, 110, 50), (90, 150, 160), (150, 120, 90),
)  # fmt: skip


def bright(rng: np.random.Generator) -> Colour:
    """Picks an RGB colour of a printed cover, in [0, 255]."""
    return shade(_BRIGHT[int(rng.integers(len(_BRIGHT)))], float(rng.uniform(0.7, 1.1)))


def _sheet(rng: np.random.Generator, height: int, width: int, colour: Colour) -> UInt8:
    """Starts a picture (height, width, 3) of one colour with slight unevenness."""
    return tint(colour, 1 + 0.06 * cloud(rng, (height, width), (height // 8, width // 8)))


def _clear(height: int, width: int, colour: Colour) -> UInt8:
    """Starts a transparent picture (height, width, 4) of one colour."""
    image = np.zeros((height, width, 4), np.uint8)
    image[..., :3] = np.uint8(np.array(colour, np.float32))
    return image


def _speckle(rng: np.random.Generator, image: UInt8, amount: float) -> UInt8:
    """Adds noise of relative strength `amount` to the colour channels."""
    factor = 1 + amount * cloud(rng, image.shape[:2], (image.shape[0] // 2, image.shape[1] // 2))
    image[..., :3] = np.clip(image[..., :3] * factor[..., None], 0, 255).astype(np.uint8)
    return image


def books(rng: np.random.Generator) -> Texture:
    """Draws a row of book spines standing in a dark shelf."""
    image = _sheet(rng, 128, 320, (44, 36, 30))
    x = int(rng.integers(2, 10))
    while x < 300:
        thick, top = int(rng.integers(6, 20)), int(rng.integers(14, 52))
        if rng.random() < 0.1:
            x += int(rng.integers(10, 46))
            continue
        colour = bright(rng)
        round_off = 1 - 0.35 * np.abs(np.linspace(-1, 1, thick, dtype=np.float32)) ** 2
        image[top:128, x : x + thick] = tint(colour, np.tile(round_off, (128 - top, 1)))[:, : 320 - x]
        for line in rng.integers(top + 8, 120, 3):
            cv2.line(image, (x + 2, int(line)), (x + thick - 3, int(line)), shade(colour, 1.5), 1)
        x += thick + 1
    return Texture(_speckle(rng, image, 0.12))


def keys(rng: np.random.Generator) -> Texture:
    """Draws 52 white piano keys with their black keys."""
    image = _sheet(rng, 64, 1040, (238, 234, 222))
    for key in range(52):
        cv2.line(image, (key * 20, 0), (key * 20, 63), (120, 116, 108), 2)
        if key % 7 in (0, 1, 3, 4, 5):
            cv2.rectangle(image, (key * 20 + 14, 0), (key * 20 + 26, 38), (18, 18, 20), -1)
    return Texture(image)


def screen(rng: np.random.Generator) -> Texture:
    """Draws a lit screen: a window of text, a chart or a picture."""
    if rng.random() < 0.3:
        return Texture(_landscape(rng, 144, 256), glow=0.5)
    dark = rng.random() < 0.5
    image = _sheet(rng, 144, 256, (34, 38, 48) if dark else (232, 234, 238))
    cv2.rectangle(image, (0, 0), (255, 12), shade(bright(rng), 0.9), -1)
    cv2.rectangle(image, (0, 13), (54, 143), (48, 54, 66) if dark else (206, 210, 218), -1)
    for y in range(22, 138, 7):
        indent = 62 + int(rng.integers(0, 4)) * 8
        cv2.line(image, (8, y), (8 + int(rng.integers(10, 38)), y), (130, 136, 148), 2)
        colour = shade(bright(rng), 1.1) if dark else (96, 100, 110)
        cv2.line(image, (indent, y), (indent + int(rng.integers(20, 120)), y), colour, 2)
    return Texture(image, glow=0.55)


def _landscape(rng: np.random.Generator, height: int, width: int) -> UInt8:
    """Draws sky, clouds and hills, (height, width, 3)."""
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    sky = np.array((150, 190, 232), np.float32) * (1 - ramp) + np.array((238, 236, 226), np.float32) * ramp
    clouds = np.maximum(cloud(rng, (height, width), (height // 16, width // 32)), 0)[..., None]
    image: UInt8 = np.clip(sky + 50 * clouds, 0, 255).astype(np.uint8)
    for layer in range(3):
        base = height * (0.5 + 0.16 * layer)
        ridge = base + cloud(rng, (16, width), (1, width // 32))[0] * height * 0.1
        ground = np.arange(height)[:, None] > ridge[None, :]
        tone = shade((110, 136, 120) if layer == 0 else (84, 118, 66), 1 - 0.18 * layer)
        image[ground] = tint(tone, 1 + 0.3 * cloud(rng, (height, width), (height // 2, width // 2)))[ground]
    return image


def view(rng: np.random.Generator) -> Texture:
    """Draws what is seen through a window by day: hills, sometimes with houses."""
    image = _landscape(rng, 192, 192)
    for _ in range(int(rng.integers(0, 5))):
        left, top, wide = int(rng.integers(-20, 170)), int(rng.integers(50, 120)), int(rng.integers(30, 60))
        wall = shade((190, 176, 160), float(rng.uniform(0.7, 1.15)))
        cv2.rectangle(image, (left, top), (left + wide, 191), wall, -1)
        for y in range(top + 8, 180, 16):
            for x in range(left + 6, left + wide - 8, 13):
                cv2.rectangle(image, (x, y), (x + 6, y + 9), (92, 106, 124), -1)
    return Texture(_speckle(rng, image, 0.08), glow=2.2)


def poster(rng: np.random.Generator) -> Texture:
    """Draws a framed print: a landscape, discs, bars or a large letter."""
    image = _sheet(rng, 192, 144, bright(rng))
    style = int(rng.integers(4))
    if style == 0:
        image = _landscape(rng, 192, 144)
    for _ in range(5 if style else 0):
        x, y, size = (int(v) for v in rng.integers((10, 10, 12), (134, 182, 46)))
        if style == 1:
            cv2.circle(image, (x, y), size, bright(rng), -1, cv2.LINE_AA)
        elif style == 2:
            cv2.rectangle(image, (x - size, y - size // 3), (x + size, y + size // 3), bright(rng), -1)
        else:
            corners = rng.integers(0, (144, 192), (3, 2)).astype(np.int32)
            cv2.fillPoly(image, [corners], bright(rng), cv2.LINE_AA)
    for y in range(160, 184, 7):
        cv2.line(image, (16, y), (16 + int(rng.integers(40, 110)), y), (240, 238, 230), 2)
    cv2.rectangle(image, (0, 0), (143, 191), (30, 28, 26) if rng.random() < 0.5 else (236, 232, 224), 7)
    return Texture(_speckle(rng, image, 0.06))


def whiteboard(rng: np.random.Generator) -> Texture:
    """Draws a whiteboard with handwriting and a sketch in an aluminium frame."""
    image = _sheet(rng, 160, 256, (236, 238, 240))
    for y in range(24, 136, 14):
        x = 16
        while x < 16 + int(rng.integers(60, 130)):
            wave = np.cumsum(rng.integers(-4, 5, 6))
            points = np.stack([x + np.arange(6) * 3, y + np.clip(wave, -5, 5)], axis=1)
            cv2.polylines(image, [points.astype(np.int32)], False, shade(bright(rng), 0.8), 1, cv2.LINE_AA)
            x += int(rng.integers(18, 30))
    for _ in range(3):
        x, y = (int(v) for v in rng.integers((170, 40), (230, 120)))
        cv2.rectangle(image, (x - 16, y - 10), (x + 16, y + 10), bright(rng), 2, cv2.LINE_AA)
        cv2.line(image, (x, y + 10), (205, 138), (50, 60, 120), 2, cv2.LINE_AA)
    cv2.rectangle(image, (0, 0), (255, 159), (150, 152, 156), 7)
    return Texture(image)


def door(rng: np.random.Generator, colour: Colour) -> Texture:
    """Draws a panelled door leaf of an RGB colour with frame, handle and perhaps a pane."""
    image = _speckle(rng, _sheet(rng, 256, 128, colour), 0.06)
    pane = rng.random() < 0.4
    for index, (top, bottom) in enumerate(((24, 112), (132, 236))):
        cv2.rectangle(image, (28, top), (100, bottom), shade(colour, 0.72), 3, cv2.LINE_AA)
        cv2.line(image, (30, bottom + 3), (102, bottom + 3), shade(colour, 1.25), 2)
        if pane and index == 0:
            image[top + 6 : bottom - 5, 34:95] = _sheet(rng, 80, 64, (150, 166, 176))[:, :61][
                : bottom - top - 11
            ]
    cv2.rectangle(image, (0, 0), (127, 255), shade(colour, 1.18), 9)
    cv2.rectangle(image, (9, 9), (118, 255), shade(colour, 0.45), 1)
    cv2.rectangle(image, (102, 120), (110, 138), (176, 170, 150), -1)
    cv2.line(image, (94, 128), (108, 128), (206, 202, 190), 4, cv2.LINE_AA)
    return Texture(image)


def clock(rng: np.random.Generator) -> Texture:
    """Draws a round clock with a white face."""
    image = _clear(96, 96, (236, 234, 226))
    cv2.circle(image, (48, 48), 47, (*shade(bright(rng), 0.6), 255), -1)
    cv2.circle(image, (48, 48), 40, (238, 236, 228, 255), -1)
    for hour in range(12):
        x, y = _dial(hour / 12, 34)
        cv2.circle(image, (x, y), 2 + (hour % 3 == 0), (40, 40, 44, 255), -1)
    for part, length, thick in ((rng.random(), 20, 4), (rng.random(), 31, 2)):
        cv2.line(image, (48, 48), _dial(float(part), length), (26, 26, 30, 255), thick, cv2.LINE_AA)
    image[..., 3] = np.where(image[..., 3] > 0, 255, 0)
    return Texture(_speckle(rng, image, 0.05))


def _dial(turn: float, length: int) -> tuple[int, int]:
    angle = 2 * np.pi * turn
    return round(48 + length * float(np.sin(angle))), round(48 - length * float(np.cos(angle)))


def speaker_front(rng: np.random.Generator, colour: Colour) -> Texture:
    """Draws a loudspeaker's front of an RGB colour: woofer, tweeter, grille and badge."""
    image = _speckle(rng, _sheet(rng, 192, 112, colour), 0.2)
    for centre, radius in (((56, 126), 44), ((56, 42), 22)):
        for part, tone in ((1.0, 2.6), (0.92, 0.6), (0.8, 1.5), (0.72, 0.8), (0.34, 2.2), (0.26, 1.1)):
            ring = shade((max(colour[0], 30), max(colour[1], 30), max(colour[2], 30)), tone)
            cv2.circle(image, centre, round(radius * part), ring, -1, cv2.LINE_AA)
    cv2.rectangle(image, (44, 178), (68, 184), (196, 190, 170), -1)
    return Texture(image)


def drum_head(rng: np.random.Generator, colour: Colour) -> Texture:
    """Draws the front skin of a bass drum in a hoop of an RGB colour, (round, with holes outside)."""
    image = _clear(160, 160, (228, 224, 214))
    cv2.circle(image, (80, 80), 79, (*shade(colour, 0.7), 255), -1)
    cv2.circle(image, (80, 80), 70, (228, 224, 214, 255), -1)
    cv2.circle(image, (80, 80), 44, (*shade(colour, 1.1), 255), 5)
    cv2.circle(image, (108, 108), 15, (26, 24, 24, 255), -1)
    cv2.rectangle(image, (48, 62), (112, 74), (*shade(colour, 0.6), 255), -1)
    return Texture(_speckle(rng, image, 0.08))


def guitar(rng: np.random.Generator, colour: Colour) -> Texture:
    """Draws an upright guitar with a body of an RGB colour, acoustic or electric."""
    image = _clear(384, 144, colour)
    acoustic = rng.random() < 0.55
    body = (*colour, 255)
    waist = 34 if acoustic else 38
    cv2.ellipse(image, (72, 310), (66, 64), 0, 0, 360, body, -1)
    cv2.ellipse(image, (72, 226), (50, 46), 0, 0, 360, body, -1)
    cv2.rectangle(image, (72 - waist - 8, 226), (72 + waist + 8, 310), body, -1)
    cv2.ellipse(image, (72, 318), (56, 50), 0, 20, 160, (*shade(colour, 1.35), 255), 4)
    if acoustic:
        cv2.circle(image, (72, 250), 24, (*shade(colour, 0.5), 255), -1)
        cv2.circle(image, (72, 250), 20, (24, 18, 14, 255), -1)
    else:
        cv2.ellipse(image, (88, 280), (34, 44), 20, 0, 360, (232, 228, 216, 255), -1)
        for y in (232, 262, 292):
            cv2.rectangle(image, (52, y), (92, y + 10), (30, 30, 32, 255), -1)
    cv2.rectangle(image, (46, 326), (98, 336), (40, 28, 20, 255), -1)
    cv2.rectangle(image, (63, 46), (81, 236), (58, 38, 26, 255), -1)
    for fret in range(60, 232, 12):
        cv2.line(image, (63, fret), (81, fret), (180, 172, 150, 255), 1)
    cv2.rectangle(image, (58, 2), (86, 48), (96, 62, 38, 255), -1)
    for peg in (10, 24, 38):
        cv2.circle(image, (55, peg), 5, (200, 196, 180, 255), -1)
        cv2.circle(image, (89, peg), 5, (200, 196, 180, 255), -1)
    for x in (66, 70, 74, 78):
        cv2.line(image, (x, 6), (x, 330), (214, 208, 190, 255), 1)
    return Texture(_speckle(rng, image, 0.12))


def leaves(rng: np.random.Generator, colour: Colour) -> Texture:
    """Draws a fan of leaves of an RGB colour rising from the middle of the lower edge."""
    image = _clear(256, 192, colour)
    for _ in range(int(rng.integers(22, 34))):
        angle = float(rng.uniform(-1.25, 1.25))
        stem = float(rng.uniform(70, 225))
        x, y = 96 + stem * 0.62 * float(np.sin(angle)), 254 - stem * float(np.cos(angle))
        tone = shade(colour, float(rng.uniform(0.55, 1.35)))
        tip = (round(x), round(max(y, 30)))
        cv2.line(image, (96, 255), tip, (*shade(colour, 0.6), 255), 2)
        axes = (round(float(rng.uniform(7, 12))), round(float(rng.uniform(18, 30))))
        cv2.ellipse(image, tip, axes, round(angle * 55), 0, 360, (*tone, 255), -1)
        cv2.ellipse(image, tip, (1, axes[1]), round(angle * 55), 0, 360, (*shade(tone, 1.35), 255), 1)
    return Texture(_speckle(rng, image, 0.2))


def pegboard(rng: np.random.Generator, colour: Colour) -> Texture:
    """Draws a perforated board of an RGB colour hung with hand tools."""
    image = _sheet(rng, 192, 320, colour)
    for y in range(6, 192, 12):
        for x in range(6, 320, 12):
            cv2.circle(image, (x, y), 2, shade(colour, 0.45), -1)
    for x in range(24, 300, 34):
        y, handle, length = int(rng.integers(20, 90)), bright(rng), int(rng.integers(36, 80))
        kind = int(rng.integers(4))
        cv2.line(image, (x, y), (x, y + length), (150, 152, 156) if kind else handle, 6)
        if kind == 0:
            cv2.rectangle(image, (x - 14, y - 6), (x + 14, y + 8), (70, 72, 78), -1)
        elif kind == 1:
            cv2.rectangle(image, (x - 5, y + length // 2), (x + 5, y + length), handle, -1)
        elif kind == 2:
            cv2.circle(image, (x, y), 11, (168, 170, 174), 5, cv2.LINE_AA)
        else:
            cv2.line(image, (x - 8, y + length), (x, y + length // 2), handle, 6)
            cv2.line(image, (x + 8, y + length), (x, y + length // 2), handle, 6)
    return Texture(_speckle(rng, image, 0.08))


def drawers(rng: np.random.Generator, colour: Colour, rows: int) -> Texture:
    """Draws a front of an RGB colour with `rows` drawers and their pulls."""
    image = _speckle(rng, _sheet(rng, 192, 128, colour), 0.07)
    step = 192 // rows
    for top in range(0, step * rows, step):
        cv2.rectangle(image, (4, top + 3), (123, top + step - 4), shade(colour, 0.6), 2)
        cv2.line(image, (6, top + 5), (121, top + 5), shade(colour, 1.3), 1)
        cv2.rectangle(image, (46, top + step // 2 - 3), (82, top + step // 2 + 2), (190, 190, 186), -1)
        cv2.line(image, (46, top + step // 2 + 4), (82, top + step // 2 + 4), shade(colour, 0.5), 2)
    return Texture(image)


def score(rng: np.random.Generator) -> Texture:
    """Draws two pages of sheet music."""
    image = _sheet(rng, 96, 128, (240, 236, 224))
    for y in range(10, 88, 16):
        for line in range(0, 9, 2):
            cv2.line(image, (8, y + line), (120, y + line), (140, 138, 132), 1)
        for x in rng.integers(10, 118, 12):
            cv2.circle(image, (int(x), y + int(rng.integers(0, 9))), 2, (24, 24, 26), -1)
    cv2.line(image, (64, 0), (64, 95), (170, 166, 156), 2)
    return Texture(image)
