"""Images come from arrays, files and folders alike, and what a network would misread is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kerastoolkit.data import list_images, read_images
from kerastoolkit.exceptions import DataError, KerasToolkitWarning

GREY = np.random.default_rng(0).integers(0, 256, (6, 9, 7), dtype="uint8")
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), dtype="uint8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, image in enumerate(COLOUR):
        name = ["cats", "dogs"][place % 2]
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / name / f"{place}.png")
    (tmp_path / "cats" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_arrays_get_an_axis_of_channels_and_keep_their_type() -> None:
    np.testing.assert_array_equal(read_images(GREY, 32), GREY[..., None])
    assert read_images(COLOUR, 32) is COLOUR
    assert read_images(COLOUR.astype("float32"), 32).dtype == "float32"


def test_a_folder_is_its_files_and_their_labels(folder: Path) -> None:
    files, labels = list_images(folder)
    assert labels == ["cats"] * 3 + ["dogs"] * 3
    assert [Path(file).name for file in files] == ["0.png", "2.png", "4.png", "1.png", "3.png", "5.png"]
    np.testing.assert_array_equal(read_images(files, 32), COLOUR[[0, 2, 4, 1, 3, 5]])
    np.testing.assert_array_equal(read_images(folder, 32), COLOUR[[0, 2, 4, 1, 3, 5]])
    np.testing.assert_array_equal(read_images(np.asarray(files), 32), COLOUR[[0, 2, 4, 1, 3, 5]])
    np.testing.assert_array_equal(read_images(files[0], 32), COLOUR[:1])


def test_files_of_different_sizes_are_resized(folder: Path) -> None:
    Image.fromarray(COLOUR[0]).resize((20, 30)).save(folder / "cats" / "large.jpg")
    assert read_images(list_images(folder)[0], 16).shape == (7, 16, 16, 3)
    one = np.full((5, 5), 100, "uint8")
    assert (read_images([one, np.full((8, 8), 100, "uint8")], 16) == 100).all()


def test_a_photograph_is_turned_the_right_way_up(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.fromarray(COLOUR[0]).save(tmp_path / "side.png", exif=exif)
    np.testing.assert_array_equal(read_images(tmp_path / "side.png", 32)[0], np.rot90(COLOUR[0], -1))


def test_files_that_cannot_be_read_are_named(folder: Path) -> None:
    (folder / "dogs" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2 of 8 files cannot be used:\n.*broken.png': it cannot be read as an image"):
        read_images([*list_images(folder)[0], "missing.png"], 32)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        list_images(tmp_path / "missing")
    with pytest.raises(DataError, match="has no sub-folders. It needs one per class"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="contains no images"):
        read_images(tmp_path, 32)
    (tmp_path / "cats").mkdir()
    with pytest.raises(DataError, match="1 sub-folder of .* contains no images: cats"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (COLOUR / 255.0, r"values from 0 to 1, .* X \* 255"),
        (COLOUR.astype(int) * 2, "values from 0 to 510"),
        (COLOUR / 127.5 - 1, "values from -1 to 1; .* The model preprocesses them itself"),
        (COLOUR[0].repeat(2, axis=0), r"Is it a single image\? .* X\[None\]"),
        (np.concatenate([COLOUR, COLOUR[..., :1]], axis=-1), r"1 channel or 3, on the last axis. .*X\[..., :3\]"),
        (np.moveaxis(COLOUR, -1, 1), r"np.moveaxis\(X, 1, -1\)"),
        (np.zeros((5, 784)), r"X.reshape\(-1, 28, 28\)"),
        (np.zeros((5, 700)), r"images have the shape \(n, height, width\[, channels\]\)\.$"),
        (np.zeros((0, 8, 8)), "and so contains no images"),
        (np.full((2, 8, 8), np.nan), "NaN or infinite"),
        (np.zeros((2, 8, 8), bool), "has the dtype bool"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_network_would_misread_is_refused(X: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_images(X, 32)


def test_dark_images_are_warned_of_when_predicting_alone() -> None:
    with pytest.warns(KerasToolkitWarning, match="these look black"):
        read_images(COLOUR / 255.0, 32, learning=False)
    read_images(np.zeros((1, 8, 8)), 32, learning=False)  # one that is black
