"""Pictures of the user's own: however they are stored, the same pixels; what is no picture is one sentence."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from stg_np.data import load
from stg_np.data.base import DataError
from stg_np.data.pictures import open_picture, pictures_in, read_picture, see
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


def float_0_to_1() -> Image.Image:
    return Image.fromarray(np.asarray(drawing()).astype(np.float32) / 255)


def lab() -> Image.Image:
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(drawing().convert("RGB"), *profiles, outputMode="LAB")
    assert converted is not None
    return converted


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
    "8-bits-in-16.png": lambda path: Image.fromarray(np.asarray(drawing()).astype(np.uint16)).save(path),
    "12-bits-in-16.png": lambda path: Image.fromarray(np.asarray(drawing()).astype(np.uint16) * 16).save(path),
    "8-bits-in-32.tiff": lambda path: Image.fromarray(np.asarray(drawing()).astype(np.int32)).save(path),
    "float-0-to-1.tiff": lambda path: float_0_to_1().save(path),
    "float-0-to-255.tiff": lambda path: Image.fromarray(np.asarray(drawing()).astype(np.float32)).save(path),
    "turned.png": turned_by_exif,
    "broken-exif.png": lambda path: drawing().save(path, exif=b"Exif\0\0garbage!"),
    "broken-exif.jpg": lambda path: drawing().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=100),
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
        ("nan.tiff", encoded(Image.new("F", (9, 9), float("nan")), "TIFF"), "floating-point pixels from nan"),
        ("heights.tiff", encoded(Image.new("F", (9, 9), -3.5), "TIFF"), "floating-point pixels from -3.5"),
        ("negative.tiff", encoded(Image.new("I", (9, 9), -7), "TIFF"), "whole-number pixels from -7"),
        ("program.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read as a picture"),
        ("bomb.png", png_that_claims(60_000, 60_000), "more than 268 million pixels"),
        ("smaller-bomb.png", png_that_claims(10_000, 10_000), "cannot be read as a picture"),
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


def test_lab_is_read_as_its_colours() -> None:
    drawing().save("plain.png")
    lab().save("lab.tiff")
    plain, other = (read_picture(Path(file), (8, 8, 3), 255).astype(int) for file in ("plain.png", "lab.tiff"))
    assert np.abs(plain - other).max() <= 4  # 8 bits of Lab are coarser


def test_a_photograph_of_108_megapixels_is_scaled() -> None:
    half = Image.new("1", (12_000, 9_000))
    half.paste(1, (0, 0, 6_000, 9_000))
    half.save("photo.png", compress_level=1)
    assert max(open_picture(Path("photo.png")).size) <= 4096
    assert read_picture(Path("photo.png"), (3, 4, 1), 255)[:, [0, -1], 0].tolist() == [[255, 0]] * 3


def test_a_telephones_200_megapixels_are_not_too_many() -> None:
    """That they would be decoded; the limit of others in this process stays what it was."""
    before = Image.MAX_IMAGE_PIXELS
    Path("photo.png").write_bytes(png_that_claims(16_320, 12_240))
    assert "damaged or cut off" in one_sentence(lambda: open_picture(Path("photo.png")))
    assert before == Image.MAX_IMAGE_PIXELS


def test_only_regular_files_are_opened() -> None:
    os.mkfifo("pipe.png")
    assert "no regular file" in one_sentence(lambda: read_picture(Path("pipe.png"), (8, 8, 1), 16))
    assert "cannot read" in one_sentence(lambda: read_picture(Path("null\0.png"), (8, 8, 1), 16))


# ------------------------------------------------------------------------------------------- framed as in the training


def enlarged_digit(k: int) -> tuple[Image.Image, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """A digit of the data in 80×80, and as it is."""
    pixels = load("digits").test_images[k, :, :, 0].astype(int)
    return Image.fromarray(np.rint(pixels * (255 / 16)).astype(np.uint8)).resize((80, 80)), pixels


DIGITS = [enlarged_digit(k) for k in range(8)]
PLACES = {"in the middle": (110, 90), "in a corner": (20, 15), "at the edge": (220, 180)}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("paper", [0, 40])
@pytest.mark.parametrize("dark_ink", [False, True])
def test_ink_is_found_wherever_it_is_and_on_any_paper(place: str, paper: int, dark_ink: bool) -> None:
    for k, (digit, _) in enumerate(DIGITS):
        sheet = Image.new("L", (300, 260), 0)
        sheet.paste(digit, PLACES[place])
        sheet = sheet.point([paper + value * (255 - paper) // 255 for value in range(256)])
        if dark_ink:
            sheet = sheet.point([255 - value for value in range(256)])
        seen = see(sheet, (8, 8, 1), 16, invert=dark_ink, crop="ink")
        assert not seen.blank
        assert not seen.dark_on_light
        # framed as in the data, but for a part of a pixel, and nothing like the other digits
        alike = [np.corrcoef(seen.pixels.reshape(-1), other.reshape(-1))[0, 1] for _, other in DIGITS]
        assert max(alike) == alike[k] > 0.75


def test_ink_fills_the_frame_in_its_own_proportions() -> None:
    sheet = Image.new("L", (400, 300), 0)
    sheet.paste(200, (60, 40, 90, 160))  # a bar, four times as high as it is wide
    pixels = see(sheet, (8, 8, 1), 255, crop="ink").pixels[:, :, 0]
    assert pixels.max() == 255
    assert (pixels[:, 3:5] > 200).all()
    assert (pixels[:, [0, 1, 6, 7]] < 30).all()
    sheet = sheet.transpose(Image.Transpose.TRANSPOSE)
    assert np.array_equal(see(sheet, (8, 8, 1), 255, crop="ink").pixels[:, :, 0], pixels.T)


def test_a_picture_of_the_right_size_is_taken_as_it_is() -> None:
    digit = np.zeros((8, 8), np.uint8)
    digit[2:5, 1:3] = 100
    seen = see(Image.fromarray(digit), (8, 8, 1), 255, crop="ink")
    assert np.array_equal(seen.pixels[:, :, 0], digit)


@pytest.mark.parametrize("noise", [0, 2])
@pytest.mark.parametrize("crop", ["ink", "middle"])
def test_a_blank_picture_is_called_blank(noise: int, crop: Literal["ink", "middle"]) -> None:
    pixels = 120 + np.random.default_rng(0).integers(-noise, noise + 1, (90, 70))
    seen = see(Image.fromarray(pixels.astype(np.uint8)), (8, 8, 1), 16, crop=crop)
    assert seen.blank
    assert not see(drawing(), (8, 8, 1), 16, crop=crop).blank


def test_dark_on_light_is_told_from_light_on_dark() -> None:
    digit, _ = DIGITS[3]
    assert not see(digit, (8, 8, 1), 16, crop="ink").dark_on_light
    assert see(digit, (8, 8, 1), 16, invert=True, crop="ink").dark_on_light
    assert not any(
        see(Image.fromarray(picture[:, :, 0] * 15), (8, 8, 1), 16).dark_on_light
        for picture in load("digits").train_images[:300]
    )


def test_the_pictures_of_a_folder_in_order() -> None:
    for name in ("b.png", "a/z.JPG", "a/notes.txt", ".hidden/c.png", ".d.png", "README"):
        Path("set", name).parent.mkdir(parents=True, exist_ok=True)
        Path("set", name).touch()
    assert pictures_in(Path("set")) == [Path("set/a/z.JPG"), Path("set/b.png")]
    Path("empty").mkdir()
    with pytest.raises(DataError, match="no picture is in the folder empty"):
        pictures_in(Path("empty"))
