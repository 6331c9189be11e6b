"""Draw the example picture: a tea house's enamel sign on a brick wall, as a camera would see it.

Needs Pillow, numpy and the Noto CJK fonts (Debian: fonts-noto-cjk). The result is checked in, so
this runs only to change the picture: ``python scripts/draw_example.py``.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

WIDTH, HEIGHT = 1280, 960
SCALE = 2  # everything is drawn twice as large, then reduced: smooth edges for free
SIMPLIFIED = 2  # the face of the Noto CJK collections that has mainland glyphs
SIGN = (860, 640)
# Where the corners of the wall lie in the photo, clockwise from the top left.
CORNERS = ((-30, -60), (1420, -24), (1395, 975), (-60, 1040))
FACE, CREAM, GOLD = (22, 66, 58), (240, 229, 200), (221, 178, 92)
FONTS = Path("/usr/share/fonts/opentype/noto")
Colour = tuple[int, int, int]
Corners = list[tuple[float, float]]
TARGET = Path(__file__).parent.parent / "atomserve_ocr" / "example.jpg"


def cloud(random: np.random.Generator, size: tuple[int, int], grain: int) -> np.ndarray:
    """Smooth noise between -1 and 1 whose blobs are about `grain` pixels wide."""
    coarse = random.random((size[1] // grain + 3, size[0] // grain + 3)) * 255
    picture = Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.float32) / 127.5 - 1


def wall(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Running-bond brickwork with uneven bricks and rough mortar."""
    picture = Image.new("RGB", size, (148, 138, 126))
    draw = ImageDraw.Draw(picture)
    brick_w, brick_h, joint = 300, 104, 13
    for row in range(-1, size[1] // brick_h + 2):
        for column in range(-1, size[0] // brick_w + 2):
            x = column * brick_w + (row % 2) * brick_w // 2 + int(random.normal(0, 3))
            y = row * brick_h + int(random.normal(0, 2))
            tone = random.normal(0, 13)
            colour = tuple(int(base + tone * k) for base, k in ((146, 1.2), (84, 0.9), (66, 0.8)))
            box = (x, y, x + brick_w - joint, y + brick_h - joint)
            draw.rounded_rectangle(box, radius=9, fill=colour)
    relief = sum(cloud(random, size, grain) * k for grain, k in ((5, 9), (26, 11), (210, 9)))
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(2)), dtype=np.float32)
    depth = np.asarray(picture.convert("L").filter(ImageFilter.GaussianBlur(3)), dtype=np.float32)
    shading = np.roll(depth, 5, axis=0) - depth  # mortar lies deeper: light from above
    return to_picture(pixels + (relief - shading * 0.55)[..., None])


def sign(fonts: Path) -> Image.Image:
    """The sign seen straight on, with an alpha channel."""
    width, height = (side * SCALE for side in SIGN)
    picture = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), radius=64, fill=(*CREAM, 255))
    draw.rounded_rectangle((16, 16, width - 17, height - 17), radius=52, fill=(*FACE, 255))
    frame = (48, 48, width - 49, height - 49)
    draw.rounded_rectangle(frame, radius=34, outline=(*GOLD, 255), width=5)

    def line(text: str, y: int, size: int, colour: Colour, *, family: str, spaced: int = 0) -> None:
        path = fonts / f"Noto{family}CJK-Bold.ttc"
        font = ImageFont.truetype(str(path), size * SCALE, index=SIMPLIFIED)
        total = sum(font.getlength(letter) for letter in text) + spaced * SCALE * (len(text) - 1)
        x = (width - total) / 2
        for letter in text:
            draw.text((x, y * SCALE), letter, font=font, fill=(*colour, 255), anchor="lm")
            x += font.getlength(letter) + spaced * SCALE

    line("原子茶馆", 148, 142, CREAM, family="Serif", spaced=22)
    line("ATOM TEA HOUSE", 276, 50, GOLD, family="Sans", spaced=8)
    rule = 330 * SCALE
    draw.line((width * 0.16, rule, width * 0.84, rule), fill=(*GOLD, 255), width=4)
    line("现泡好茶", 392, 58, CREAM, family="Sans", spaced=14)
    line("Freshly brewed since 1998", 466, 40, CREAM, family="Serif")
    line("营业时间09:00-21:30", 552, 44, GOLD, family="Sans", spaced=3)
    for x, y in ((84, 84), (width - 84, 84), (84, height - 84), (width - 84, height - 84)):
        draw.ellipse((x - 15, y - 15, x + 15, y + 15), fill=(176, 140, 70, 255))
        draw.ellipse((x - 11, y - 12, x + 8, y + 6), fill=(236, 208, 140, 255))
        draw.line((x - 8, y + 8, x + 8, y - 8), fill=(92, 70, 34, 255), width=4)
    return picture


def weathered(random: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Give the enamel its sheen, uneven colour and a little rust at the rim."""
    size = picture.size
    pixels = np.asarray(picture, dtype=np.float32)
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    diagonal = columns / size[0] + 0.7 * rows / size[1]
    sheen = 38 * np.exp(-(((diagonal - 0.5) / 0.16) ** 2))
    stain = cloud(random, size, 150) * 7 + cloud(random, size, 9) * 3
    colour = pixels[..., :3] + (sheen + stain)[..., None]
    edge = np.minimum.reduce([columns, rows, size[0] - columns, size[1] - rows])
    spots = cloud(random, size, 120) + cloud(random, size, 37) * 0.6 + cloud(random, size, 11) * 0.4
    rust = np.clip(1 - edge / 34, 0, 1) * np.clip(spots * 2.4 - 0.9, 0, 1)
    colour += (np.array((120, 62, 30)) - colour) * rust[..., None]
    return Image.merge("RGBA", (*to_picture(colour).split(), picture.getchannel("A")))


def projected(picture: Image.Image, corners: Corners, size: tuple[int, int]) -> Image.Image:
    """Move a flat picture's corners to `corners` on a canvas of `size`."""
    width, height = picture.size
    source = ((0, 0), (width, 0), (width, height), (0, height))
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    matrix = np.linalg.solve(np.array(rows, dtype=float), np.array(values, dtype=float))
    return picture.transform(size, Image.Transform.PERSPECTIVE, matrix, Image.Resampling.BICUBIC)


def leaves(random: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Out-of-focus leaves in the foreground, at the lower right."""
    picture = Image.new("RGBA", size, (44, 70, 26, 0))
    for nearness in np.linspace(0.4, 1.0, 70):
        shade = nearness * random.uniform(0.55, 1.35)
        length = int(random.uniform(130, 270))
        leaf = Image.new("RGBA", (length, length), (0, 0, 0, 0))
        colour = (int(70 * shade), int(108 * shade), int(38 * shade), 255)
        rim = length * 0.32  # two arcs that meet in points make a leaf
        outline = [
            (t * length, length / 2 + k * rim * math.sin(math.pi * t) * (1 - t / 3))
            for k in (-1, 1)
            for t in np.linspace(0, 1, 24)[::k]
        ]
        ImageDraw.Draw(leaf).polygon(outline, fill=colour)
        leaf = leaf.rotate(random.uniform(20, 200), Image.Resampling.BICUBIC)
        across, up = abs(random.normal(0, 1)), abs(random.normal(0, 1))
        if across + up < 2.2:
            x, y = size[0] - across * 330 - length / 2, size[1] - up * 210 - length / 2
            picture.alpha_composite(leaf, (int(x), int(y)))
    return picture.filter(ImageFilter.GaussianBlur(11))


def photographed(random: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Light the scene unevenly and add what a lens and a sensor add."""
    width, height = picture.size
    rows, columns = np.mgrid[0:height, 0:width]
    warm = np.exp(-(((columns / width - 0.24) / 0.62) ** 2) - ((rows / height - 0.1) / 0.75) ** 2)
    away = np.hypot(columns / width - 0.5, rows / height - 0.5)
    light = (0.74 + 0.5 * warm) * (1 - 0.42 * away**2)
    tint = 1 + np.array((0.07, 0.01, -0.09)) * (warm[..., None] - 0.35)
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7)), dtype=np.float32)
    pixels = pixels * light[..., None] * tint
    grain = random.normal(0, 4.2, (height, width, 1)) + random.normal(0, 1.6, (height, width, 3))
    return to_picture(pixels + grain)


def to_picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def scene(fonts: Path, seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    large = (WIDTH * SCALE, HEIGHT * SCALE)
    canvas = wall(random, large).convert("RGBA")
    board = Image.new("RGBA", large)
    flat = weathered(random, sign(fonts)).rotate(1.2, Image.Resampling.BICUBIC, expand=True)
    board.paste(flat, ((large[0] - flat.width) // 2 - 40, (large[1] - flat.height) // 2 - 20))
    for offset, blur, strength in ((12, 8, 0.6), (44, 32, 0.5)):
        shadow = ImageChops.offset(board.getchannel("A"), offset, int(offset * 1.4))
        shadow = shadow.filter(ImageFilter.GaussianBlur(blur))
        canvas.paste((18, 12, 10), mask=Image.eval(shadow, lambda a, k=strength: int(a * k)))
    canvas.alpha_composite(board)
    canvas = projected(canvas, [(x * SCALE, y * SCALE) for x, y in CORNERS], large)
    canvas.alpha_composite(leaves(random, large))
    small = canvas.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    return photographed(random, small)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fonts", type=Path, default=FONTS)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    scene(options.fonts, options.seed).save(options.output, quality=84, optimize=True)
