"""Pictures of text lines with exact labels: rendered from Debian's fonts, then blurred and made noisy, by a seed.

What `ocr.py` reads. English lines hold words of /usr/share/dict/words; numbers are numbers, prices, dates, times and telephone
numbers; Chinese lines are strings of common characters (level 1 of GB 2312), whatever they mean.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from figures import require

PACKAGES = "apt-get install fonts-dejavu-core fonts-liberation fonts-noto-cjk wamerican"
INSTALL = "pip install pillow opencv-python-headless"
WORDS = Path("/usr/share/dict/words")
FONTS = Path("/usr/share/fonts")
LATIN = ("truetype/dejavu/*.ttf", "truetype/liberation/*.ttf")
CHINESE = ("opentype/noto/NotoS*CJK-*.ttc",)
KINDS = ("words", "numbers", "chinese")
SIZES = (14, 18, 24, 32, 44)  # of the font, in pixels

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Line:
    """`picture` is uint8 [height, width, 3], BGR as OpenCV has it; `kind` one of `KINDS`."""

    text: str
    kind: str
    picture: Picture


class Renderer:
    """Draws lines, one after the other; the same seed and the same fonts give the same lines.

    :raises SystemExit: where a font, the list of words or a package is missing.
    """

    def __init__(self, seed: int, alphabet: Iterable[str]) -> None:
        """:param alphabet: the characters that the recogniser knows; no label holds another."""
        self.random = np.random.default_rng(seed)
        known = frozenset(alphabet)
        self._characters = [character for character in common_characters() if character in known]
        self._fonts = {kind: fonts(CHINESE if kind == "chinese" else LATIN) for kind in KINDS}
        self._words = english_words()

    def line(self) -> Line:
        """One line of a random kind: half of them words, a quarter numbers, a quarter Chinese."""
        kind = str(self.random.choice(KINDS, p=(0.5, 0.25, 0.25)))
        text = getattr(self, f"_{kind}_text")()
        return Line(text, kind, self._spoil(self._draw(text, kind)))

    def _words_text(self) -> str:
        return " ".join(self.random.choice(self._words, self.random.integers(1, 5)))

    def _numbers_text(self) -> str:
        number = self.random.integers
        return str(
            self.random.choice([
                f"{number(10**9)}", f"${number(1000)}.{number(100):02}", f"{number(100) / 10}%",
                f"{number(1, 13):02}/{number(1, 29):02}/{number(1950, 2030)}",
                f"{number(24):02}:{number(60):02}:{number(60):02}",
                f"+{number(1, 99)} ({number(100, 999)}) {number(1000, 9999)}-{number(100, 999)}",
            ])
        )  # fmt: skip

    def _chinese_text(self) -> str:
        return "".join(self.random.choice(self._characters, self.random.integers(3, 13)))

    def _draw(self, text: str, kind: str) -> Picture:
        """Dark on light or light on dark, in colours of enough contrast, with a narrow margin."""
        image, draw, truetype = (require(f"PIL.{name}", INSTALL) for name in ("Image", "ImageDraw", "ImageFont"))
        font = truetype.truetype(str(self.random.choice(self._fonts[kind])), int(self.random.choice(SIZES)))
        left, top, right, bottom = font.getbbox(text)
        margins = self.random.integers(1, 2 + font.size // 4, 4)
        dark, light = self.random.integers(0, 100, 3), self.random.integers(150, 256, 3)
        ink, paper = (dark, light) if self.random.random() < 0.75 else (light, dark)
        size = (int(right - left + margins[:2].sum()), int(bottom - top + margins[2:].sum()))
        page = image.new("RGB", size, tuple(int(part) for part in paper))
        corner = (int(margins[0] - left), int(margins[2] - top))
        draw.Draw(page).text(corner, text, tuple(int(part) for part in ink), font=font)
        return np.asarray(page, np.uint8)[:, :, ::-1]

    def _spoil(self, picture: Picture) -> Picture:
        """Blur in proportion to the height, then noise of each pixel and channel."""
        cv2 = require("cv2", INSTALL)
        deviation = self.random.uniform(0, 0.03) * len(picture)
        blurred = cv2.GaussianBlur(picture, (0, 0), deviation) if deviation > 0.2 else picture
        noise = self.random.normal(0, self.random.uniform(0, 30), blurred.shape)
        return np.clip(np.rint(blurred + noise), 0, 255).astype(np.uint8)


def fonts(patterns: tuple[str, ...]) -> list[Path]:
    found = sorted(path for pattern in patterns for path in FONTS.glob(pattern))
    if not found:
        raise SystemExit(f"no font {FONTS}/{patterns[0]}: {PACKAGES}")
    return found


def english_words() -> list[str]:
    """Words of ASCII letters, two at least."""
    if not WORDS.exists():
        raise SystemExit(f"{WORDS} is missing: {PACKAGES}")
    letters = frozenset(string.ascii_letters)
    return [word for word in WORDS.read_text().split() if len(word) > 1 and letters.issuperset(word)]


def common_characters() -> list[str]:
    """The 3755 characters of GB 2312, level 1: rows 16 to 55 of 94 cells, the last of which ends early."""
    cells = [bytes((0xA0 + row, 0xA0 + cell)) for row in range(16, 56) for cell in range(1, 95)]
    return [cell.decode("gb2312") for cell in cells[:3755]]


def prepared(picture: Picture, width: int, height: int = 48) -> npt.NDArray[np.float32]:
    """As rapidocr does it: to `height` with the proportions kept, at most `width` wide, to -1 … 1, and zeros up to `width`.

    :returns: float32 [3, height, width].
    """
    cv2 = require("cv2", INSTALL)
    wanted = min(width, int(np.ceil(height * picture.shape[1] / picture.shape[0])))
    resized = cv2.resize(picture, (wanted, height)).astype(np.float32).transpose(2, 0, 1)
    padded = np.zeros((3, height, width), np.float32)
    padded[:, :, :wanted] = (resized / 255 - 0.5) / 0.5
    return padded


def rotated(picture: Picture) -> Picture:
    """Upside down."""
    return np.ascontiguousarray(picture[::-1, ::-1])


def batches(pictures: list[Picture], size: int = 6, height: int = 48, width: int = 320) -> list[tuple[list[int], int]]:
    """As rapidocr does it: indices in the order of the proportions, `size` at a time, with the width that all of them get."""
    ratios = [picture.shape[1] / picture.shape[0] for picture in pictures]
    order = [int(index) for index in np.argsort(ratios)]
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    return [(group, int(height * max(width / height, *(ratios[index] for index in group)))) for group in groups]
