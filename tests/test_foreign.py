"""What others made is read within limits, or refused in words that a terminal can show."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np.foreign import check_leaves, open_regular, parse_json, parse_toml, read_limited, showable


def test_a_regular_file_is_read_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_limited(file, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_limited(file, 4)
    (tmp_path / "link").symlink_to(file)
    assert read_limited(tmp_path / "link", 5) == b"12345"


def test_nothing_but_a_regular_file_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for strange in ("pipe", "link", "socket"):
        with pytest.raises(OSError, match="no regular file"):
            open_regular(tmp_path / strange)
    for strange in ("/dev/zero", "/dev/null"):
        with pytest.raises(OSError, match="no regular file"):
            open_regular(Path(strange))
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nowhere")


@given(st.text(st.characters(codec=None)), st.integers(1, 50))
def test_whatever_the_text_it_can_be_shown(text: str, longest: int) -> None:
    shown = showable(text, longest)
    shown.encode()
    assert len(shown) <= 10 * longest
    assert not any(sign < " " or "\x7f" <= sign <= "\x9f" for sign in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat, Katze, 猫, 👍🏽", "cat, Katze, 猫, 👍🏽"),
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
        ("\u202eevil\u2028", r"\u202eevil\u2028"),
        ("\ud800", r"\ud800"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_only_what_controls_is_replaced(text: str, shown: str) -> None:
    assert showable(text) == shown


FAR_TOO_MUCH = {
    "deep lists": "[" * 100_000 + "]" * 100_000,
    "lists of some depth": "[" * 50 + "]" * 50,
    "many lists": "[" + "[]," * 200_000 + "[]]",
    "many digits": "9" * 5_000,
    "more than 64 bits": str(2**63),
    "no value": "{",
}


@pytest.mark.parametrize("case", FAR_TOO_MUCH)
def test_json_and_toml_have_limits(case: str) -> None:
    with pytest.raises(ValueError, match=r"^.{1,200}$"):
        parse_json(FAR_TOO_MUCH[case])
    with pytest.raises(ValueError, match=r"^.{1,200}$"):
        parse_toml(f"x = {FAR_TOO_MUCH[case]}".encode())


@pytest.mark.parametrize(
    "content",
    [
        "a." * 30_000 + "b = 1",
        "[" + "a." * 30_000 + "b]",
        "x = " + "{a=" * 5_000 + "1" + "}" * 5_000,
        "x = 0x" + "f" * 8_000,
        "x = 0b" + "1" * 20_000,
        "\xff",
        "x = 1\nx = 2",
    ],
)
def test_what_only_toml_can_ask_for(content: str) -> None:
    with pytest.raises(ValueError, match=r"^.{1,200}$"):
        parse_toml(content.encode("latin-1"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("x = 1".encode("utf-16"), "no text in UTF-8"),
        (b"x = " + b"9" * 5_000, "a number or a date that is none"),
    ],
)
def test_what_toml_says_is_said_in_our_words(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_toml(content)


def test_what_is_modest_is_read() -> None:
    assert parse_toml(b"\xef\xbb\xbfa = 1\r\n") == {"a": 1}  # as some editors save it
    assert parse_json(b'{"a": [1, -2.5e3, null, "x"]}') == {"a": [1, -2500.0, None, "x"]}
    assert parse_toml(b'a.b = [1, "x.y"]\n[c]\nd = true\n') == {"a": {"b": [1, "x.y"]}, "c": {"d": True}}
    check_leaves({"a": [2**63 - 1, -(2**63)]})
