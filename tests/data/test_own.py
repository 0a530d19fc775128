"""Data of a user's own: a folder for each class, and arrays; what is wrong with them is one sentence."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stg_np.data import DataError, Dataset, is_own, load, portable_name
from stg_np.data import arrays as arrays_module
from tests.data.conftest import one_sentence

KINDS = {"cat": (250, 40, 40), "dog": (40, 40, 250)}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def draw(folder: str, count: int, size: tuple[int, int] = (12, 10), grey: bool = False) -> Path:
    """Pictures of two classes, each in another colour and another format."""
    for kind, colour in KINDS.items():
        Path(folder, kind).mkdir(parents=True)
        for k in range(count):
            picture = Image.new("RGB", size, tuple(max(0, level - 3 * k) for level in colour))
            (picture.convert("L") if grey else picture).save(Path(folder, kind, f"{k}.{('png', 'jpg', 'bmp')[k % 3]}"))
    return Path(folder)


def everything(dataset: Dataset) -> list[Any]:
    return [dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels]


def same(one: Dataset, other: Dataset) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(everything(one), everything(other)))


def test_a_folder_for_each_class_is_split_by_a_seed() -> None:
    draw("pets", 10)
    dataset = load("pets")
    assert dataset.classes == ("cat", "dog")
    assert dataset.shape == (10, 12, 3)
    assert np.bincount(dataset.train_labels).tolist() == [8, 8]
    assert np.bincount(dataset.test_labels).tolist() == [2, 2]
    reds, blues = (dataset.train_images[dataset.train_labels == k].mean((0, 1, 2)) for k in (0, 1))
    assert reds[0] > 150 > 100 > reds[2]
    assert blues[2] > 150 > 100 > blues[0]
    assert same(dataset, load("pets"))
    assert not same(dataset, load("pets", split_seed=5))
    assert dataset.label == f"pets (random split, seed 0, fingerprint {dataset.fingerprint})"


def test_folders_say_what_is_for_the_test() -> None:
    draw("pets/train", 5)
    draw("pets/test", 2)
    dataset = load("pets")
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (10, 4)
    assert dataset.label == f"pets (fingerprint {dataset.fingerprint})"
    assert "leave the split seed out" in one_sentence(lambda: load("pets", split_seed=1))


def test_sizes_and_colours() -> None:
    draw("small", 5, grey=True)
    assert load("small").shape == (10, 12, 1)
    assert load("small", size=(6, 8)).shape == (6, 8, 1)
    assert load("small", size=(6, 8, 3)).shape == (6, 8, 3)
    draw("large", 5, size=(90, 70))
    assert load("large").shape == (32, 32, 3)
    Image.new("L", (7, 7)).save("small/cat/other.png")
    assert load("small").shape == (32, 32, 1)
    assert "choose a smaller --size" in one_sentence(lambda: load("small", size=(40_000, 40_000)))


def test_damaged_pictures_are_named_and_left_out() -> None:
    draw("pets", 10)
    whole = load("pets")
    Path("pets/cat/a.png").write_bytes(b"no picture")
    os.mkfifo("pets/cat/b.png")
    Path("pets/cat/notes.txt").write_text("not meant to be one")
    dataset = load("pets")
    assert same(dataset, whole)
    assert dataset.fingerprint == whole.fingerprint
    assert ["a.png" in dataset.damaged[0], "b.png" in dataset.damaged[1]] == [True, True]
    assert len(dataset.damaged) == 2


def test_the_fingerprint_follows_files_and_classes() -> None:
    before = load(str(draw("pets", 5))).fingerprint
    assert load("pets").fingerprint == before
    Path("pets/cat/0.png").rename("pets/cat/9.png")
    Path("pets/cat/9.png").rename("pets/cat/0.png")
    assert load("pets").fingerprint == before
    Path("pets/dog/0.png").rename("pets/cat/x.png")
    moved = load("pets").fingerprint
    Path("pets/dog").rename("pets/wolf")
    assert len({before, moved, load("pets").fingerprint}) == 3


def test_a_folder_that_has_moved_is_read_under_its_name() -> None:
    draw("pets", 5)
    name, before = portable_name("pets"), load("pets")
    assert before.name == name
    Path("pets").rename("animals")
    after = load(name, "animals")
    assert (after.name, after.fingerprint, after.label) == (before.name, before.fingerprint, before.label)
    assert "say with --data" in one_sentence(lambda: load(name))
    assert "neither a folder" in one_sentence(lambda: load(name, "nowhere"))


@pytest.mark.parametrize(
    ("made", "part"),
    [
        (["pets/"], "a folder for each of two classes"),
        (["pets/cat/"], "a folder for each of two classes"),
        (["pets/cat/", "pets/dog/"], "no picture that can be read"),
        (["pets/train/cat/", "pets/train/dog/"], "holds train but no test"),
        (["pets/train/cat/", "pets/train/dog/", "pets/test/cow/"], "cow"),
    ],
)
def test_a_folder_without_what_is_needed_is_one_sentence(made: list[str], part: str) -> None:
    for path in made:
        Path(path).mkdir(parents=True)
    message = one_sentence(lambda: load("pets"))
    assert "pets" in message
    assert part in message


# ------------------------------------------------------------------------------------------------------------- arrays


def arrays(count: int = 20, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count) % 3


@pytest.mark.parametrize(
    "names", ["x_train y_train x_test y_test", "train_images train_labels test_images test_labels"]
)
def test_arrays_under_their_usual_names(names: str) -> None:
    (x, y), (x_test, y_test) = arrays(), arrays(6, seed=1)
    np.savez("mine.npz", **dict(zip(names.split(), (x, y, x_test, y_test))))
    dataset = load("mine.npz")
    assert dataset.shape == (6, 5, 1)
    assert np.array_equal(dataset.train_images[..., 0], x)
    assert np.array_equal(dataset.test_labels, y_test)
    assert dataset.classes == ("0", "1", "2")
    assert dataset.label.startswith("mine.npz (fingerprint")


def test_arrays_without_a_test_are_split() -> None:
    x, y = arrays(30, (6, 5, 3))
    np.savez("mine.npz", x=x, y=y[:, None])
    dataset = load("mine.npz")
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (24, 6)
    assert not same(dataset, load("mine.npz", split_seed=4))


def test_a_data_set_is_saved_and_loaded() -> None:
    x, y = arrays()
    letters = np.array(["a", "b", "c"])[y]
    made = Dataset.from_arrays(x / 255, letters, x[:5] / 255, [*"abcab"], name="letters", flip=True)
    assert made.classes == ("a", "b", "c")
    assert np.array_equal(made.train_images[..., 0], x)
    made.save("letters.npz")
    assert sorted(path.name for path in Path().iterdir()) == ["letters.npz"]
    again = Dataset.load("letters.npz")
    assert same(made, again)
    assert (again.classes, again.fingerprint, again.value_range) == (made.classes, made.fingerprint, 255)
    assert again.flip
    Path("letters.npz.part").write_text("somebody's")
    made.save("letters.npz")
    assert Path("letters.npz.part").read_text() == "somebody's"
    assert "ends in .npz" in one_sentence(lambda: made.save("letters"))
    assert "cannot write" in one_sentence(lambda: made.save("no/such/folder/letters.npz"))


@pytest.mark.parametrize(("most", "value_range"), [(1, 1), (16, 16), (17, 255)])
def test_the_range_of_the_pixels_is_the_usual_one_that_holds_them(most: int, value_range: int) -> None:
    x, y = arrays()
    dataset = Dataset.from_arrays((x % (most + 1)).astype(float), y)
    assert dataset.value_range == value_range
    assert dataset.train_images.max() == most


def test_a_range_of_one_is_that_of_the_numbers_given() -> None:
    dataset = Dataset.from_arrays(X / 255, Y, value_range=1)
    assert (dataset.value_range, str(dataset.train_images.dtype)) == (255, "uint8")
    with pytest.raises(TypeError, match="value_range must be a whole number"):
        Dataset.from_arrays(X, Y, value_range=2.5)  # type: ignore[arg-type]


def test_a_changed_pixel_or_label_changes_the_fingerprint() -> None:
    x, y = arrays()
    first = Dataset.from_arrays(x, y).fingerprint
    x[3, 2, 2] ^= 1
    second = Dataset.from_arrays(x, y).fingerprint
    y[3] = (y[3] + 1) % 3
    assert len({first, second, Dataset.from_arrays(x, y).fingerprint}) == 3


X, Y = arrays()
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "flat pictures": ({"x_train": X.reshape(20, -1)}, "shape 20×30"),
    "channels first": ({"x_train": np.zeros((20, 3, 6, 5))}, "(NCHW), x.transpose(0, 2, 3, 1)"),
    "no pictures": ({"x_train": X[:0], "y_train": Y[:0]}, "shape 0×6×5"),
    "words": ({"x_train": np.full((20, 6, 5), "a")}, "type"),
    "negative": ({"x_train": X.astype(int) - 9}, "pixels from -9"),
    "not a number": ({"x_train": np.where(np.arange(20)[:, None, None] == 3, np.nan, X)}, "the first in picture 3"),
    "scaled otherwise": ({"x_train": X / 100}, "fractional pixels"),
    "fewer labels": ({"y_train": Y[:7]}, "20 pictures and 7 labels"),
    "one-hot labels": ({"y_train": np.eye(3)[Y]}, "shape"),
    "fractional labels": ({"y_train": Y / 2}, "labels"),
    "negative labels": ({"y_train": Y - 1}, "labels"),
    "labels from one": ({"y_train": Y + 1}, "no picture to learn from of 0"),
    "too few names": ({"classes": ["a", "b"]}, "label 2"),
    "one class": ({"y_train": Y * 0}, "two classes"),
    "a test without labels": ({"x_test": X}, "without labels"),
    "a test of another size": ({"x_test": X[:, 1:], "y_test": Y}, "other sizes"),
    "0 … 1, a range of 255": ({"x_train": (X > 9).astype(float), "value_range": 255}, "up to 1 only"),
    "a small range": ({"value_range": 16}, "value range of 16"),
    "names in one text": ({"classes": "abc"}, "give a list of names"),
    "names in a table": ({"classes": [["a", "b", "c"]]}, "give a list of names"),
    "names that are numbers with a point": ({"classes": [np.nan, 1.0, 2.0]}, "give a list of names"),
    "labels in another encoding": ({"y_train": np.array([b"\xff", b"a"] * 10)}, "no UTF-8"),
    "a name for the terminal": ({"classes": ["a", "b", "\x1b[2J"]}, "cannot be printed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_are_no_pictures_and_labels_are_one_sentence(case: str) -> None:
    given, part = WRONG[case]
    with pytest.raises(DataError) as caught:
        Dataset.from_arrays(**({"x_train": X, "y_train": Y} | given))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_archives_that_are_none_are_one_sentence() -> None:
    Path("text.npz").write_text("no archive")
    assert "text.npz is no NumPy archive" in one_sentence(lambda: Dataset.load("text.npz"))
    np.savez("objects.npz", x=np.array([{}, []], object), y=Y)
    assert "holds objects" in one_sentence(lambda: Dataset.load("objects.npz"))
    np.savez("others.npz", a=X)
    assert "name the arrays x_train" in one_sentence(lambda: Dataset.load("others.npz"))
    assert "no file" in one_sentence(lambda: Dataset.load("missing.npz"))
    with zipfile.ZipFile("long.npz", "w") as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    assert "not as long as it says" in one_sentence(lambda: Dataset.load("long.npz"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("value_range", []), ("value_range", "abc"), ("value_range", 0), ("value_range", -1), ("value_range", np.nan),
        ("value_range", 1e300), ("value_range", 1j), ("value_range", 2.5), ("value_range", [16, 16]),
        ("value_range", 2**63), ("flip", "no"), ("flip", [True, False]),
    ],
)  # fmt: skip
def test_what_stands_beside_the_arrays_is_checked(name: str, value: Any) -> None:
    stored: dict[str, Any] = {name: np.array(value)}
    np.savez("mine.npz", x=X, y=Y, **stored)
    assert f"{name} is " in one_sentence(lambda: load("mine.npz"))


def test_names_may_be_bytes() -> None:
    np.savez("mine.npz", x=X, y=Y, classes=np.array(["Käfer".encode(), b"b", b"c"]))
    assert load("mine.npz").classes == ("Käfer", "b", "c")


def test_an_archive_unfolds_to_no_more_than_is_known_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten kilobytes by bzip2 can be gigabytes at a single read, and by deflate a thousand times as much."""
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile("folded.npz", "w", method) as archive, archive.open("x.npy", "w") as file:
            np.lib.format.write_array(file, X)
        assert "compressed in a way" in one_sentence(lambda: Dataset.load("folded.npz"))
    monkeypatch.setattr(arrays_module, "FREE", 1 << 16)
    np.savez_compressed("folded.npz", x=np.zeros((20, 200, 100), np.uint8), y=Y)
    assert "too much for so small a file" in one_sentence(lambda: Dataset.load("folded.npz"))
    np.savez("plain.npz", x=np.zeros((20, 200, 100), np.uint8), y=Y)
    assert len(Dataset.load("plain.npz").train_labels) == 16


def test_the_list_of_members_has_a_limit() -> None:
    with zipfile.ZipFile("many.npz", "w") as archive:
        for number in range(12_000):
            archive.writestr(f"{number:050}", b"")
    assert "list of members is longer" in one_sentence(lambda: Dataset.load("many.npz"))


def test_what_is_written_down_belongs_to_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data/pets").mkdir(parents=True)
    here = Path.cwd()
    names = ["data/pets", "./data/pets/", str(here / "data/pets"), "data/../data/pets"]
    assert {portable_name(name) for name in names} == {"./data/pets"}
    assert portable_name("digits") == "digits"
    assert portable_name(".") == f"./{here.name}"
    monkeypatch.chdir("data/pets")
    assert {portable_name(name) for name in ("..", str(here / "data"))} == {"./data"}


def test_names_of_data_sets_come_before_folders() -> None:
    Path("digits").mkdir()
    assert not is_own("digits")
    assert is_own("./digits")
