"""Pictures of the user's own: however they are stored, the same pixels; what is no picture is one sentence."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stg_np.data.pictures import read_picture
from tests.data.conftest import one_sentence


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def drawing() -> Image.Image:
    """A grey picture, light at the left and dark at the bottom."""
    down, right = np.mgrid[0:40, 0:40]
    return Image.fromarray((np.clip(250 - 4 * right - 2 * down, 0, 255) // 10 * 10).astype(np.uint8))


def grey_16_bits() -> Image.Image:
    return Image.fromarray(np.asarray(drawing()).astype(np.uint16) * 257)


def turned_by_exif(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8  # stored lying on its side
    drawing().transpose(Image.Transpose.ROTATE_270).save(path, exif=exif)


VARIANTS: dict[str, Callable[[Path], None]] = {
    "rgb.png": lambda path: drawing().convert("RGB").save(path),
    "palette.png": lambda path: drawing().convert("P").save(path),
    "alpha.png": lambda path: drawing().convert("RGBA").save(path),
    "grey-alpha.png": lambda path: drawing().convert("LA").save(path),
    "16-bit.png": lambda path: grey_16_bits().save(path),
    "turned.png": turned_by_exif,
    "cmyk.tiff": lambda path: drawing().convert("RGB").convert("CMYK").save(path),
    "lossless.webp": lambda path: drawing().save(path, lossless=True),
    "grey.gif": lambda path: drawing().save(path),
    "grey.pgm": lambda path: drawing().save(path),
    "wide.png": lambda path: wide().save(path),
}


def wide() -> Image.Image:
    canvas = Image.new("L", (100, 40), 77)
    canvas.paste(drawing(), (30, 0))
    return canvas


@pytest.mark.parametrize("name", VARIANTS)
def test_every_way_to_store_a_picture_gives_the_same_pixels(name: str) -> None:
    drawing().save("plain.png")
    VARIANTS[name](Path(name))
    plain, other = (read_picture(Path(file), (8, 8, 1), 255).astype(int) for file in ("plain.png", name))
    assert plain.shape == (8, 8, 1)
    assert plain[0, 0, 0] > 200 > 60 > plain[7, 7, 0]
    assert np.abs(plain - other).max() <= 1
    assert read_picture(Path(name), (6, 8, 3), 16).max() <= 16


def test_transparent_parts_are_white_and_invert_turns_them_black() -> None:
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save("nothing.png")
    assert (read_picture(Path("nothing.png"), (8, 8, 1), 16) == 16).all()
    assert (read_picture(Path("nothing.png"), (8, 8, 1), 16, invert=True) == 0).all()


def png_that_claims(width: int, height: int) -> bytes:
    """The header of a PNG of any size, with a right checksum, and no pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + pixels


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("text.png", b"I am no picture", "cannot be read as a picture"),
        ("empty.jpg", b"", "cannot be read as a picture"),
        ("cut.png", encoded(drawing(), "PNG")[:-60], "cannot be read as a picture"),
        ("cut.jpg", encoded(drawing(), "JPEG")[:-200], "cannot be read as a picture"),
        ("float.tiff", encoded(Image.new("F", (9, 9)), "TIFF"), "cannot be read as a picture"),
        ("program.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read as a picture"),
        ("bomb.png", png_that_claims(60_000, 60_000), "more pixels"),
        ("smaller-bomb.png", png_that_claims(10_000, 10_000), "more pixels"),
    ],
)
def test_a_picture_that_is_no_picture_is_one_sentence(name: str, content: bytes, part: str) -> None:
    Path(name).write_bytes(content)
    message = one_sentence(lambda: read_picture(Path(name), (8, 8, 1), 16))
    assert name in message
    assert part in message


def test_a_missing_picture_or_a_folder_is_one_sentence() -> None:
    assert "there is no picture missing.png" in one_sentence(lambda: read_picture(Path("missing.png"), (8, 8, 1), 16))
    assert "directory" in one_sentence(lambda: read_picture(Path(), (8, 8, 1), 16))
