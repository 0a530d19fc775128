"""Checkpoints: what is written is read back; what is damaged, forged or cut off is refused in one sentence."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, boolean_dtypes, floating_dtypes, integer_dtypes

from stg_np.backend import Array, to_device, to_host
from stg_np.runs.archive import FORMAT, CheckpointError, load, read_header, save, write_atomically

ARRAYS = {
    "params": np.linspace(-1, 1, 7, dtype=np.float32),
    "moments/steps": np.array(3.0, np.float32),
    "loss_sum": np.array(0.1),
}
META = {"model": {"width": 8, "name": "Gedächtnis"}, "step": 3}


def types(members: Mapping[str, Array]) -> dict[str, tuple[tuple[int, ...], Any]]:
    return {name: (array.shape, array.dtype) for name, array in members.items()}


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        assert found[name].tobytes() == array.tobytes()  # NaN and −0.0 too


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint.npz"


@pytest.fixture
def saved(path: Path) -> Path:
    save(path, ARRAYS, META)
    return path


# --- There and back -------------------------------------------------------------------------------------------


def test_round_trip(saved: Path) -> None:
    assert read_header(saved) == {"format": FORMAT, **META}
    assert_same(load(saved, types(ARRAYS)), ARRAYS)
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


@given(st.data())
def test_every_dtype_and_shape_round_trips(data: st.DataObject) -> None:
    dtypes = floating_dtypes(endianness="=") | integer_dtypes(endianness="=") | boolean_dtypes()
    shapes = array_shapes(min_dims=0, min_side=0, max_side=4)
    members = data.draw(st.dictionaries(st.sampled_from(["a", "b/c", "stm1.W"]), arrays(dtypes, shapes)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.npz"
        save(path, members, {})
        assert_same(load(path, types(members)), members)


@pytest.mark.parametrize(
    "array", [np.ones((2, 3)).T, np.arange(10)[::-2], np.float32(2.5), np.broadcast_to(1.0, (2, 2))]
)
def test_views_and_numpy_scalars_round_trip(array: Any, path: Path) -> None:
    save(path, {"a": array}, {})
    found = load(path, {"a": (array.shape, array.dtype)})["a"]
    np.testing.assert_array_equal(found, array)
    assert isinstance(found, np.ndarray)
    assert found.flags.writeable


def test_arrays_of_a_device_round_trip(path: Path, device: str) -> None:
    save(path, {name: to_device(array, device) for name, array in ARRAYS.items()}, META)
    found = load(path, types(ARRAYS))
    assert_same(found, ARRAYS)
    for name, array in found.items():
        assert to_host(to_device(array, device)).tobytes() == ARRAYS[name].tobytes()


def test_numpy_reads_it_without_pickle(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["params"], ARRAYS["params"])
        assert json.loads(archive["header"].tobytes())["step"] == 3


def test_the_newer_checkpoint_replaces_the_older(saved: Path) -> None:
    save(saved, {"params": np.zeros(2)}, {"step": 4})
    assert read_header(saved)["step"] == 4
    assert_same(load(saved, {"params": ((2,), np.float64)}), {"params": np.zeros(2)})


def test_it_can_be_read_by_others_of_the_machine(saved: Path) -> None:
    assert saved.stat().st_mode & 0o777 == 0o644


def test_objects_are_not_saved(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="allow_pickle"):
        save(saved, {"a": np.array([{}, None], object)}, {})
    with pytest.raises(TypeError, match="JSON"):
        save(saved, ARRAYS, {"rng": object()})
    with pytest.raises(ValueError, match="header"):
        save(saved, {"header": np.zeros(2)}, {})
    with pytest.raises(TypeError, match="NumPy or CuPy"):
        save(saved, {"a": [1, 2]}, {})  # type: ignore[dict-item]
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1


# --- Writing fails ----------------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    """The sentence with which saving to ``path`` ends."""
    with pytest.raises(CheckpointError) as caught:
        save(path, ARRAYS, META)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_the_folder_is_missing(tmp_path: Path) -> None:
    assert "No such file or directory" in refused(tmp_path / "nowhere" / "checkpoint.npz")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_a_file(saved: Path) -> None:
    assert "Not a directory" in refused(saved / "checkpoint.npz")


def test_the_target_is_a_folder(path: Path) -> None:
    path.mkdir()
    assert "director" in refused(path).lower()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_the_folder_may_not_be_written(saved: Path) -> None:
    saved.parent.chmod(0o500)
    try:
        assert "Permission denied" in refused(saved)
    finally:
        saved.parent.chmod(0o700)
    assert_same(load(saved, types(ARRAYS)), ARRAYS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_disk_is_full(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file's descriptor is made to lead to /dev/full: a real ENOSPC from the operating system."""
    make_temporary: Any = tempfile.NamedTemporaryFile

    def full(**options: Any) -> Any:
        file = make_temporary(**options)
        descriptor = os.open("/dev/full", os.O_WRONLY)
        os.dup2(descriptor, file.fileno())
        os.close(descriptor)
        return file

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", full)
    assert "No space left on device" in refused(saved)
    assert_same(load(saved, types(ARRAYS)), ARRAYS)
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


PREAMBLE = """
import sys
from pathlib import Path
import numpy as np
from stg_np.runs.archive import CheckpointError, load, read_header, save
path = Path(sys.argv[1])
"""


def run_python(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_file_may_not_grow_that_large(saved: Path) -> None:
    pytest.importorskip("resource")
    before = saved.read_bytes()
    done = run_python(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save(path, {"params": np.ones(100_000)}, {})
        except CheckpointError as error:
            print(error)
        """,
        saved,
    )
    assert done.stdout.startswith(f"cannot write {saved}: File too large"), done.stderr
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(saved, {"params": np.zeros(3)}, {})
    assert_same(load(saved, types(ARRAYS)), ARRAYS)
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_what_an_interrupted_write_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last [1].npz"
    stale, strangers = tmp_path / f".{path.name}.abc.tmp", [tmp_path / ".best.npz.abc.tmp", tmp_path / "notes.tmp"]
    for file in (stale, *strangers):
        file.write_bytes(b"half")
    save(path, ARRAYS, META)
    assert sorted(tmp_path.iterdir()) == sorted([path, *strangers])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill")
def test_a_process_that_is_killed_while_it_saves_leaves_a_whole_file(path: Path) -> None:
    """kill -9 at 15 random moments of a loop that does nothing but save; each child saves at least once."""
    done = run_python(
        """
        import os, signal, time
        rng = np.random.default_rng(0)
        unfinished = 0
        save(path, {"a": np.zeros(30_000, int)}, {"step": 0})
        for moment in range(15):
            before = read_header(path)["step"]
            child = os.fork()
            if child == 0:
                step = read_header(path)["step"]
                while True:
                    step += 1
                    save(path, {"a": np.full(30_000, step)}, {"step": step})
            while read_header(path)["step"] == before:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.005))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            step = read_header(path)["step"]
            assert (load(path, {"a": ((30_000,), int)})["a"] == step).all()
            unfinished += len(list(path.parent.iterdir())) > 1
        save(path, {}, {})
        print(unfinished, len(list(path.parent.iterdir())))
        """,
        path,
    )
    assert done.returncode == 0, done.stderr
    unfinished, files = map(int, done.stdout.split())
    assert unfinished > 0  # some were killed in the middle of it
    assert files == 1


# --- Damage -----------------------------------------------------------------------------------------------------


def read_everything(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    header = read_header(path)
    return header, {name: array.tobytes() for name, array in load(path, types(ARRAYS)).items()}


def test_no_flipped_bit_goes_unnoticed(saved: Path) -> None:
    """At every place of the file: it is refused, or nothing that counts has changed (a date in the archive, say)."""
    whole, truth = saved.read_bytes(), read_everything(saved)
    harmless = set()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        saved.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            assert read_everything(saved) == truth, place
            harmless.add(place)
    saved.write_bytes(whole)
    with zipfile.ZipFile(saved) as archive:
        for member in archive.infolist():
            start = whole.index(archive.read(member))
            assert not harmless & set(range(start, start + member.file_size))


def test_no_truncation_goes_unnoticed(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in (*range(0, len(whole), 7), *range(len(whole) - 60, len(whole))):
        saved.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_everything(saved)


@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(0, 200))
def test_any_splice_is_refused_or_harmless(content: bytes, place: int, removed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.npz"
        save(path, ARRAYS, META)
        whole, truth = path.read_bytes(), read_everything(path)
        place %= len(whole) + 1
        path.write_bytes(whole[:place] + content + whole[place + removed :])
        with contextlib.suppress(CheckpointError):
            assert read_everything(path) == truth


@pytest.mark.parametrize("content", [b"", b"PK", b"a text\n", b"\x93NUMPY\x01\x00", bytes(1000)])
def test_what_is_no_checkpoint_is_called_that(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read in (read_header, lambda file: load(file, types(ARRAYS))):
        with pytest.raises(CheckpointError, match="is not an stg-np checkpoint, or it is damaged"):
            read(path)


def test_what_is_not_there_is_called_that(path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        read_header(path)
    path.mkdir()
    with pytest.raises(CheckpointError, match="cannot read"):
        load(path, {})


# --- Other contents than expected ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"params": ((8,), np.float32)}, r"params is \(7,\) float32, not \(8,\) float32"),
        ({"params": ((7, 1), np.float32)}, r"not \(7, 1\) float32"),
        ({"params": ((7,), np.float64)}, "not .* float64"),
        ({"params": ((7,), np.dtype(np.float32).newbyteorder())}, "params is"),
        ({"more": ((1,), np.float32)}, "more missing or unknown"),
        ({"params": None}, "params missing or unknown"),
    ],
)
def test_another_name_shape_or_dtype_is_refused(saved: Path, change: dict[str, Any], words: str) -> None:
    expected = {name: kind for name, kind in {**types(ARRAYS), **change}.items() if kind is not None}
    with pytest.raises(CheckpointError, match=words) as caught:
        load(saved, expected)
    assert str(saved) in str(caught.value)


def npy(array: Array, **header: Any) -> bytes:
    """An .npy member, with another header than the array calls for."""
    file = io.BytesIO()
    shape, dtype = header.get("shape", array.shape), header.get("descr", np.lib.format.dtype_to_descr(array.dtype))
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": dtype})
    return file.getvalue() + array.tobytes()


def forge(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """An archive with right checksums over whatever is in it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def text(value: Any) -> bytes:
    return npy(np.frombuffer(json.dumps(value).encode(), np.uint8))


@pytest.mark.parametrize(
    "content",
    [
        text(["a list"]),
        text({"format": "stg-np checkpoint 99"}),
        text({"step": 3}),
        npy(np.frombuffer(b"{not json", np.uint8)),
        npy(np.frombuffer(b'"\xff\xfe"', np.uint8)),
        npy(np.frombuffer(b"[" * 100_000, np.uint8)),
        npy(np.zeros(3)),
        npy(np.zeros((), np.uint8)),
        npy(np.zeros(4, np.uint8), shape=(-4,)),
        b"",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x02\x00" + text({"format": FORMAT})[8:],
        b"\x93NUMPY\x01\x00\x06\x00((((((",
    ],
)
def test_a_forged_header_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError):
        read_header(forge(path, {"header": content}))


def test_a_header_that_is_missing_is_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match="header"):
        read_header(forge(path, {"params": npy(np.zeros(2))}))


def refuses_without_memory(action: Callable[[], Any]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            action()
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


TERABYTES = (2**40,)


def test_terabytes_are_refused_without_room_for_them(path: Path) -> None:
    huge = npy(np.zeros(4, np.uint8), shape=TERABYTES)
    refuses_without_memory(lambda: read_header(forge(path, {"header": huge})))
    refuses_without_memory(lambda: load(forge(path, {"a": huge}), {"a": ((4,), np.uint8)}))
    refuses_without_memory(lambda: load(path, {"a": (TERABYTES, np.uint8)}))  # though somebody expected them


def test_an_array_longer_or_shorter_than_its_shape_is_refused(path: Path) -> None:
    for shape in ((3,), (5,)):
        forge(path, {"a": npy(np.zeros(4), shape=shape)})
        with pytest.raises(CheckpointError, match="a has 32 bytes"):
            load(path, {"a": (shape, np.float64)})


def test_an_archive_that_would_unfold_is_refused(path: Path) -> None:
    zeros = np.zeros(10_000_000, np.uint8)
    forge(path, {"a": npy(zeros), "header": text({"format": FORMAT})}, zipfile.ZIP_DEFLATED)
    expected = types({"a": zeros})
    del zeros
    refuses_without_memory(lambda: load(path, expected))
    refuses_without_memory(lambda: read_header(path))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    for strange in (pipe, Path(os.devnull)):
        with pytest.raises(CheckpointError, match="no regular file"):
            read_header(strange)  # and does not wait for somebody to write into the pipe


def test_a_list_of_members_without_end_is_refused(path: Path) -> None:
    forge(path, {"header": text({"format": FORMAT})} | {f"{k}/{'x' * 200}": b"" for k in range(8_000)})
    refuses_without_memory(lambda: read_header(path))


@pytest.mark.parametrize("value", ["[" + "[]," * 200_000 + "[]]", '{"step": ' + "9" * 4_000 + "}"])
def test_a_header_of_too_many_objects_or_digits_is_refused(path: Path, value: str) -> None:
    forge(path, {"header": npy(np.frombuffer(value.encode(), np.uint8))})
    refuses_without_memory(lambda: read_header(path))


def test_a_member_larger_than_expected_is_not_read(path: Path) -> None:
    forge(path, {"a": npy(np.zeros(8_000_000, np.uint8))})
    refuses_without_memory(lambda: load(path, {"a": ((4,), np.dtype(np.uint8))}))


def test_names_of_members_cannot_control_a_terminal(path: Path) -> None:
    forge(path, {"\x1b[2J\n": npy(np.zeros(2))})
    with pytest.raises(CheckpointError) as caught:
        load(path, {})
    assert str(caught.value).isprintable()


def test_a_pickle_is_refused_and_not_run(path: Path, tmp_path: Path) -> None:
    proof = tmp_path / "it was run"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return proof.touch, ()

    poison = pickle.dumps(Trap())
    objects = npy(np.zeros((), np.uint8), descr="|O", shape=())[:-1] + poison
    for content in (objects, poison):
        forge(path, {"header": text({"format": FORMAT}), "a": content})
        for expected in (((), np.dtype(object)), ((), np.dtype(np.float32))):
            with pytest.raises(CheckpointError):
                load(path, {"a": expected})
        with pytest.raises(CheckpointError):
            read_header(forge(path, {"header": content}))
    assert not proof.exists()
    pickle.loads(poison)
    assert proof.exists()  # the trap works


def test_nothing_warns_about_a_strange_file(path: Path) -> None:
    """NumPy warns about headers written by Python 2 (a long integer), and users should see our sentence alone."""
    content = npy(np.zeros(4)).replace(b"(4,), }", b"(4L,),}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CheckpointError):
            load(forge(path, {"a": content}), {"a": ((5,), np.float64)})


def test_other_files_are_written_in_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .*config\.toml: No such file or directory; an older file"):
        write_atomically(tmp_path / "no" / "config.toml", b"text")
    write_atomically(tmp_path / "config.toml", b"text")
    assert (tmp_path / "config.toml").read_bytes() == b"text"
