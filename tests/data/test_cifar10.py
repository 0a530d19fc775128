"""CIFAR-10 in both official formats, from folders and archives, honest and hostile."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stg_np import data
from stg_np.data import DataError, cifar10
from stg_np.data.cifar10 import PARTS
from stg_np.data.python_batch import read_python_batch
from tests.data.builders import (
    binary_files,
    cifar_records,
    python2_pickle,
    python_files,
    write_archive,
    write_files,
)
from tests.data.conftest import one_sentence

RECORDS = cifar_records(count=3)
BINARY, PYTHON = binary_files(RECORDS), python_files(RECORDS)
SOURCES = {
    "binary folder": lambda at: write_files(at / "somewhere", BINARY),
    "python folder": lambda at: write_files(at / "somewhere", PYTHON),
    "parent of the binary folder": lambda at: write_files(at / "cifar-10-batches-bin", BINARY).parent,
    "parent of the python folder": lambda at: write_files(at / "cifar-10-batches-py", PYTHON).parent,
    "binary archive": lambda at: write_archive(at / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", BINARY),
    "python archive": lambda at: write_archive(at / "cifar-10-python.tar.gz", "cifar-10-batches-py", PYTHON),
    "archive renamed": lambda at: write_archive(at / "download (1)", "cifar-10-batches-py", PYTHON),
    "folder of the archive": lambda at: (
        write_archive(at / "cifar-10-python.tar.gz", "cifar-10-batches-py", PYTHON).parent
    ),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_official_form_gives_the_same_pictures(tmp_path: Path, kind: str) -> None:
    cifar = data.load("cifar10", SOURCES[kind](tmp_path))
    assert cifar.train_images.shape == (15, 32, 32, 3)
    assert cifar.test_images.shape == (3, 32, 32, 3)
    assert cifar.train_images.dtype == np.uint8
    assert cifar.train_labels.dtype == np.int64
    for k, record in enumerate(np.concatenate([RECORDS[part] for part in list(PARTS)[:-1]])):
        assert cifar.train_labels[k] == record[0]
        for channel in range(3):  # red, green and blue planes follow one another in the record
            plane = record[1 + 1024 * channel : 1 + 1024 * (channel + 1)]
            np.testing.assert_array_equal(cifar.train_images[k, :, :, channel].reshape(-1), plane)
    np.testing.assert_array_equal(cifar.test_labels, RECORDS["test_batch"][:, 0])
    assert not cifar.official
    assert cifar.fingerprint == data.load("cifar10", write_files(tmp_path / "x", BINARY)).fingerprint
    assert cifar.label == f"cifar10 (not the official files, fingerprint {cifar.fingerprint})"


@pytest.mark.parametrize("kind", ["binary folder", "python archive"])
def test_the_bytes_of_the_binary_format_decide_what_is_official(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for part in PARTS:
        monkeypatch.setitem(PARTS, part, hashlib.sha256(BINARY[f"{part}.bin"]).hexdigest())
    cifar = data.verify("cifar10", SOURCES[kind](tmp_path))
    assert cifar.official
    assert cifar.label == "cifar10"
    assert [check.name for check in cifar.files] == [f"{part}.bin" for part in PARTS]


def test_a_plain_tar_is_read_as_well(tmp_path: Path) -> None:
    packed = write_archive(tmp_path / "packed", "cifar-10-batches-bin", BINARY)  # some browsers unpack gzip
    (tmp_path / "cifar-10-binary.tar").write_bytes(gzip.decompress(packed.read_bytes()))
    assert len(data.load("cifar10", tmp_path / "cifar-10-binary.tar").train_labels) == 15


def test_padding_after_the_archive_is_read_to_the_end(tmp_path: Path) -> None:
    packed = write_archive(tmp_path / "packed", "cifar-10-batches-bin", BINARY)
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()) + bytes(3_000_000)))
    assert len(data.load("cifar10", packed).train_labels) == 15


def test_a_whole_archive_wins_over_a_half_unpacked_folder(tmp_path: Path) -> None:
    write_files(tmp_path / "cifar-10-batches-bin", {"data_batch_1.bin": BINARY["data_batch_1.bin"]})
    archive = write_archive(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", BINARY)
    assert data.load("cifar10", tmp_path).source == str(archive)


def test_members_are_never_written_to_disk(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {**BINARY, "../../escaped": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    before = sorted(tmp_path.parent.rglob("*"))
    assert len(data.load("cifar10", path).train_labels) == 15
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    files = {name: content for name, content in BINARY.items() if name != "data_batch_3.bin"}
    write_files(tmp_path / "cifar-10-batches-bin", files)
    message = one_sentence(lambda: data.load("cifar10", tmp_path))
    assert "cifar-10-batches-bin lacks data_batch_3.bin" in message
    archive = write_archive(tmp_path / "a.tar.gz", "cifar-10-batches-bin", files)
    assert "lacks data_batch_3" in one_sentence(lambda: data.load("cifar10", archive))


DAMAGE = {
    "cut off": (BINARY["test_batch.bin"][:-1], "9,218 bytes"),
    "empty": (b"", "0 bytes"),
    "label out of range": (BINARY["test_batch.bin"][:3073] + b"\xc8" + bytes(3072), "picture 1 has label 200"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_part_is_one_sentence(tmp_path: Path, damage: str) -> None:
    content, expected = DAMAGE[damage]
    write_files(tmp_path, {**BINARY, "test_batch.bin": content})
    message = one_sentence(lambda: data.load("cifar10", tmp_path))
    assert expected in message
    assert "test_batch" in message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_archive_is_one_sentence(tmp_path: Path, share: float) -> None:
    archive = write_archive(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", BINARY)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    assert str(archive) in one_sentence(lambda: data.load("cifar10", archive))


def test_a_truncated_plain_tar_is_one_sentence(tmp_path: Path) -> None:
    packed = write_archive(tmp_path / "packed", "cifar-10-batches-bin", BINARY)
    path = tmp_path / "cut.tar"
    path.write_bytes(gzip.decompress(packed.read_bytes())[:20_000])
    assert "not a whole tar archive" in one_sentence(lambda: data.load("cifar10", path))


def test_a_flipped_bit_at_the_end_of_the_archive_is_noticed(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", BINARY)
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1  # the checksum that gzip keeps at the very end
    archive.write_bytes(bytes(content))
    assert "damaged" in one_sentence(lambda: data.load("cifar10", archive))


@pytest.mark.parametrize("content", [b"<html>404</html>", b"\x89PNG\r\n" + bytes(2000), b""])
def test_a_file_that_is_no_archive_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    assert "not a whole tar archive" in one_sentence(lambda: data.load("cifar10", path))


def test_an_archive_of_something_else_is_one_sentence(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "other.tar.gz", "holiday", {"beach.jpg": b"x"})
    assert "is not the archive of CIFAR-10" in one_sentence(lambda: data.load("cifar10", path))


def tar_member(pax: dict[str, str], content: bytes = bytes(3073)) -> bytes:
    """An archive with one part, and whatever an extended header may say of it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("data_batch_1.bin")
        member.size, member.pax_headers = len(content), pax
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def tar_header(kind: bytes, size: int, sparse: bytes = b"") -> bytes:
    """The header of a part, with a sum that fits; ``sparse``: the size that an old sparse member claims."""
    member = tarfile.TarInfo("data_batch_1.bin")
    member.type, member.size = kind, size
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    if sparse:
        header[386:410], header[483:495] = b"00000000000\0" * 2, sparse
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


STRANGE_ARCHIVES = {
    "a map of holes that is none": tar_member({"GNU.sparse.map": "a,b"}),
    "a size that is no number": tar_member({"GNU.sparse.size": "x"}),
    "holes in the newest format": tar_member({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, b"\xff" * 3073),
    "two gigabytes of holes": tar_header(tarfile.GNUTYPE_SPARSE, 0, b"20000000000\0") + bytes(10240),
    "more holes than any number": tar_header(tarfile.GNUTYPE_SPARSE, 0, b"\x80" + b"\x7f" * 11) + bytes(10240),
    "a part of a petabyte": tar_header(tarfile.REGTYPE, 1 << 50) + bytes(10240),
    "a part of less than nothing": tar_header(tarfile.REGTYPE, -5) + bytes(10240),
    "an extended header without end": tar_header(tarfile.XHDTYPE, 1 << 33) + bytes(10240),
    "a name without end": tar_header(tarfile.GNUTYPE_LONGNAME, 1 << 33) + bytes(10240),
    "members without end": tar_header(tarfile.REGTYPE, 0) * 2_000,
    "a name to scare a terminal": tarfile.TarInfo("\x1b[2J").tobuf() + bytes(10240),
}


@pytest.mark.parametrize("case", STRANGE_ARCHIVES)
def test_a_strange_archive_is_one_sentence_and_costs_no_memory(tmp_path: Path, case: str) -> None:
    path = tmp_path / "strange.tar"
    path.write_bytes(STRANGE_ARCHIVES[case])
    tracemalloc.start()
    try:
        assert "strange.tar" in one_sentence(lambda: data.load("cifar10", path))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_an_archive_that_unfolds_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "LARGEST_ARCHIVE", 1_000_000)
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(tar_header(tarfile.XHDTYPE, 900_000)) + bytes(2_000_000)))
    assert "unfolds to more than 1,000,000 bytes" in one_sentence(lambda: data.load("cifar10", path))


def test_a_part_that_is_no_file_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_files(tmp_path / "folder", BINARY)
    monkeypatch.setattr(cifar10, "LARGEST_PART", 5_000)
    assert "more than 5,000 bytes" in one_sentence(lambda: data.load("cifar10", folder))
    (folder / "test_batch.bin").unlink()
    os.mkfifo(folder / "test_batch.bin")
    assert "lacks test_batch.bin" in one_sentence(lambda: data.load("cifar10", folder))


# --- the python format: what a pickle may and may not do --------------------------------------------------------


@given(st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_both_memory_orders_of_the_array_are_understood(count: int, fortran: bool, random: object) -> None:
    batch = RECORDS["data_batch_2"][:count]
    read = read_python_batch(python2_pickle(batch[:, 0], batch[:, 1:], fortran=fortran), "a batch")
    np.testing.assert_array_equal(read, batch)


class _Calls:
    """Pickles to a program that calls ``function(*arguments)``."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.mkdir, exec, getattr, np.load, np.frombuffer])
def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path: Path, protocol: int, function: object) -> None:
    made = tmp_path / "made"
    argument = f"__import__('os').mkdir({str(made)!r})" if function is exec else str(made)
    hostile = pickle.dumps({b"labels": [1], b"data": _Calls(function, argument)}, protocol)
    write_files(tmp_path / "batches", {**PYTHON, "data_batch_4": hostile})
    message = one_sentence(lambda: data.load("cifar10", tmp_path / "batches"))
    assert "refused and nothing of it was executed" in message
    assert not made.exists()


def _wrong_batch(**changes: bytes) -> bytes:
    batch = RECORDS["data_batch_1"]
    return python2_pickle(batch[:, 0], batch[:, 1:], **changes)  # type: ignore[arg-type]


WRONG_PICKLES = {
    "not a pickle": b"<html>404</html>",
    "empty": b"",
    "cut off": _wrong_batch()[:-100],
    "a list": pickle.dumps([1, 2]),
    "an unknown name in numpy": b"cnumpy\nload\n.",
    "an attribute of an allowed name": b"cnumpy\nndarray.tofile\n.",
    "a persistent id": b"Pevil\n.",
    "labels that are a number": b"\x80\x02}(U\x06labelsJ\xff\xff\xff\x7fU\x04dataNu.",
    "memory for four thousand million": b"\x80\x02Nr\xff\xff\xff\xff.",
    "a shape beyond any machine": _wrong_batch().replace(b"M\x03\x00M", b"I99999999999999999999999\nM", 1),
    "a mark with a state": b"\x80\x02(Nb.",
    "text to scare a terminal": b"\x80\x04\x8c\x05\x1b[2J\n\x8c\x04eval\x93.",
    "no labels": b"\x80\x02}.",
    "objects for bytes": _wrong_batch(dtype=b"O8"),
    "a label that is no byte": _wrong_batch().replace(b"labels](K", b"labels](J\xff\xff\xff\xffK", 1),
    "another width": python2_pickle(np.zeros(2, np.uint8), np.zeros((2, 100), np.uint8)),
    "fewer labels": python2_pickle(np.zeros(1, np.uint8), np.zeros((2, 3072), np.uint8)),
    "an array that was never built": (
        b"\x80\x02}(U\x06labels](K\x01eU\x04datacnumpy.core.multiarray\n_reconstruct\n)Ru."
    ),
    "a name in place of an array": b"\x80\x02}(U\x06labels](K\x01eU\x04datacnumpy\nndarray\nu.",
    "a key that kills who hashes it": b"\x80\x02}(N" + b"\x85" * 250_000 + b"Nu.",
    "a pair that kills who compares it": b"\x80\x02N" + b"q\x00h\x00\x86" * 200 + b"0.",
    "tuples without end": b"\x80\x02N" + b"\x85" * 1_000_000 + b".",
    "marks without end": b"\x80\x02" + b"(" * 1_000_000 + b".",
    "a list in itself": b"\x80\x02}(U\x06labels]q\x00(h\x00eU\x04dataNu.",
    "labels with a name": b"\x80\x02}(U\x06labels](U\x01xeU\x04dataNu.",
    "a number of 100,000 digits": b"L" + b"9" * 100_000 + b"L\n.",
    "a long text where none belongs": b"V" + b"x" * 1_000_000 + b"\n.",
    "the stand-in itself changed": (b"\x80\x02cnumpy\nndarray\n}U\x08__init__K\x01sb}(U\x06labels](K\x01eU\x04dataNu."),
}


@pytest.mark.parametrize("case", WRONG_PICKLES)
def test_a_pickle_that_is_no_batch_is_one_sentence(case: str) -> None:
    assert "a batch" in one_sentence(lambda: read_python_batch(WRONG_PICKLES[case], "a batch"))
    good = RECORDS["data_batch_1"]  # and it has left nothing behind
    np.testing.assert_array_equal(read_python_batch(PYTHON["data_batch_1"], "a batch"), good)


@given(st.data())
def test_damage_anywhere_ends_in_a_batch_or_in_a_data_error(draw: st.DataObject) -> None:
    content = bytearray(PYTHON["data_batch_1"])
    for _ in range(draw.draw(st.integers(1, 4))):
        # the structure is at both ends, the pixels are between them
        place = draw.draw(st.one_of(st.integers(0, 350), st.integers(len(content) - 100, len(content) - 1)))
        content[place] = draw.draw(st.integers(0, 255))
    try:
        records = read_python_batch(bytes(content), "a batch")
    except DataError:
        return
    assert records.dtype == np.uint8
    assert records.shape[1] == 3073
