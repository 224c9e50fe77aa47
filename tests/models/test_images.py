"""Image files on their way into a model: in order, one ahead, and named where they are at fault."""

from __future__ import annotations

import threading
from pathlib import Path

import families
import pytest
from PIL import Image

from fcit.models.images import (
    ImageTooLargeError,
    image_size,
    open_image,
    read_ahead,
    read_image,
)
from fcit.models.processors import ImageReader, prepare_blank
from fcit.types import FcitError

PATHS = [Path(f"{at}.png") for at in range(4)]


def test_a_file_at_fault_is_told_in_its_turn_and_those_before_it_come() -> None:
    def do(path: Path) -> str:
        if path == PATHS[2]:
            raise FcitError(f"{path}: image cannot be decoded")
        return path.stem

    found = read_ahead(do, PATHS)
    assert [next(found), next(found)] == ["0", "1"]
    with pytest.raises(FcitError, match=r"2\.png: image cannot be decoded"):
        next(found)
    assert list(found) == []


@pytest.mark.parametrize(("count", "threads"), [(0, 0), (1, 0), (2, 1), (4, 1)])
def test_one_image_needs_no_thread(count: int, threads: int) -> None:
    seen: list[threading.Thread] = []

    def do(path: Path) -> Path:
        seen.append(threading.current_thread())
        return path

    assert list(read_ahead(do, PATHS[:count])) == PATHS[:count]
    assert len(set(seen) - {threading.main_thread()}) == threads


@pytest.mark.parametrize("look", [open_image, image_size, read_image])
def test_a_file_that_is_not_there_cannot_be_read(look, tmp_path: Path) -> None:
    with pytest.raises(FcitError, match=r"no\.png: image cannot be read: No such file"):
        look(tmp_path / "no.png")


@pytest.mark.parametrize(
    "look", [open_image, image_size, lambda path: open_image(path.read_bytes(), path)]
)
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nnothing", b"P6 9 x"])
def test_a_broken_file_cannot_be_decoded(look, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(FcitError, match=r"broken\.png: image cannot be decoded"):
        look(tmp_path / "broken.png")


def test_a_file_that_the_processor_refuses_is_named(tmp_path: Path) -> None:
    """Qwen2.5-VL's takes no strip more than 200 times as wide as high."""
    strip, plain = tmp_path / "strip.png", tmp_path / "plain.png"
    Image.new("RGB", (2000, 4)).save(strip)
    Image.new("RGB", (64, 32)).save(plain)
    reader = ImageReader(families.qwen25()[1], False)
    said = r"strip\.png: the model takes no image of 2000 x 4 pixels: "
    with pytest.raises(FcitError, match=said):
        reader.prepare(strip, strip.read_bytes())
    with pytest.raises(FcitError, match=said):
        reader.token_counts([plain, strip])
    assert reader.token_counts([plain, plain]) == [8, 8]
    with pytest.raises(FcitError, match=r"^the model takes no image"):
        prepare_blank(reader.processor, (2000, 4))


def test_one_function_opens_a_path_and_bytes_and_bounds_their_size(tmp_path: Path) -> None:
    path = tmp_path / "thin.png"
    Image.new("L", (50, 2), 7).save(path)
    assert open_image(path).getpixel((3, 1)) == (7, 7, 7)
    assert open_image(path.read_bytes(), max_pixels=2500).size == (50, 2)
    with pytest.raises(ImageTooLargeError, match="thin.png: image has too many pixels: 50 x 50"):
        open_image(path, max_pixels=2499)
    with pytest.raises(FcitError, match="^image cannot be decoded: unknown or damaged format$"):
        open_image(path.read_bytes(), formats=("JPEG",))
