"""Image files on their way into a model: in order, one ahead, and named where they are at fault."""

from __future__ import annotations

import threading
from pathlib import Path

import families
import pytest
from PIL import Image

from fcit.models import processors
from fcit.models.images import ahead, measure, open_image, read
from fcit.models.pictures import Pictures
from fcit.types import FcitError

PATHS = [Path(f"{at}.png") for at in range(4)]


def test_a_file_at_fault_is_told_in_its_turn_and_those_before_it_come() -> None:
    def do(path: Path) -> str:
        if path == PATHS[2]:
            raise FcitError(f"{path}: image cannot be decoded")
        return path.stem

    found = ahead(do, PATHS)
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

    assert list(ahead(do, PATHS[:count])) == PATHS[:count]
    assert len(set(seen) - {threading.main_thread()}) == threads


@pytest.mark.parametrize("look", [lambda path: open_image(path, path), measure, read])
def test_a_file_that_is_not_there_cannot_be_read(look, tmp_path: Path) -> None:
    with pytest.raises(FcitError, match=r"no\.png: image cannot be read: No such file"):
        look(tmp_path / "no.png")


@pytest.mark.parametrize("look", [lambda path: open_image(path, path), measure])
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
    pictures = Pictures(families.qwen25()[1], False)
    said = r"strip\.png: the model takes no image of 2000 x 4 pixels: "
    with pytest.raises(FcitError, match=said):
        pictures.prepared(strip, strip.read_bytes())
    with pytest.raises(FcitError, match=said):
        pictures.tokens([plain, strip])
    assert pictures.tokens([plain, plain]) == [8, 8]
    with pytest.raises(FcitError, match=r"^the model takes no image"):
        processors.blank(pictures.processor, (2000, 4))
