"""What `open_image` makes of pictures that are not plain 8-bit RGB."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from fcit.models.images import ImageTooLargeError, image_size, open_image, read_image
from fcit.types import FcitError

RED, WHITE = (255, 0, 0), (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"gray.{suffix}"
    levels = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    if suffix == "pgm":
        path.write_bytes(b"P5 4 1 65535\n" + levels.astype(">u2").tobytes())
    else:
        Image.fromarray(levels).save(path)
    image = open_image(path)
    assert [image.getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in (0, 1, 128, 255)]


@pytest.mark.parametrize(("kind", "word"), [(np.int32, "32-bit"), (np.float32, "floating-point")])
def test_pixels_without_a_range_are_refused_by_name(kind, word: str, tmp_path: Path) -> None:
    path = tmp_path / "depth.tif"
    Image.fromarray(np.array([[0, 5]], dtype=kind)).save(path)
    with pytest.raises(FcitError, match=rf"depth\.tif: image cannot be decoded: {word} pixels"):
        open_image(path)


def _tiff(
    pixels: np.ndarray,
    photometric: int,
    sample_format: int = 1,
    separate: bool = False,
    packed: bool = False,
) -> bytes:
    """A TIFF of pixels [height, width, channels]: as they are, or deflated (packed)."""
    height, width, channels = pixels.shape
    planes = [pixels[..., n] for n in range(channels)] if separate else [pixels]
    strips = [zlib.compress(plane.tobytes()) if packed else plane.tobytes() for plane in planes]
    tags = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [8 * pixels.itemsize] * channels),
        259: ("H", [8 if packed else 1]), 262: ("H", [photometric]), 273: ("I", []),
        277: ("H", [channels]), 278: ("I", [height]), 279: ("I", [*map(len, strips)]),
        284: ("H", [2 if separate else 1]), 339: ("H", [sample_format] * channels),
    }  # fmt: skip
    data = b""
    start = 8 + 2 + 12 * len(tags) + 4
    for strip in strips:
        tags[273][1].append(start + len(data))
        data += strip
    entries = b""
    for tag, (kind, values) in tags.items():
        value = struct.pack(f"<{len(values)}{kind}", *values)
        if len(value) > 4:
            value, data = struct.pack("<I", start + len(data)), data + value
        entries += struct.pack("<HHI4s", tag, 3 if kind == "H" else 4, len(values), value)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_lowest_level_is_white_where_a_tiff_says_so(kind, packed: bool) -> None:
    """DICOM calls it MONOCHROME1."""
    most = np.iinfo(kind).max
    levels = np.array([[[0], [most // 5], [most]]], dtype=kind)
    for photometric, shown in ((0, [255, 204, 0]), (1, [0, 51, 255])):
        image = open_image(_tiff(levels, photometric, packed=packed))
        assert [image.getpixel((x, 0)) for x in range(3)] == [(v, v, v) for v in shown]


@pytest.mark.parametrize("kind", [np.int8, np.int16])
def test_signed_pixels_are_refused_by_name(kind) -> None:
    levels = np.array([[[-5], [0], [5]]], dtype=kind)
    with pytest.raises(FcitError, match="signed pixels have no known range; window them to 8 bits"):
        open_image(_tiff(levels, 1, sample_format=2))


def test_separate_planes_of_sixteen_bits_are_read_right_or_refused_by_name() -> None:
    levels = np.arange(24, dtype=np.uint16).reshape(2, 4, 3) * 2730
    told = "16-bit channels in separate planes are not read; save them interleaved"
    with pytest.raises(FcitError, match=told):
        open_image(_tiff(levels, 2, separate=True))
    for kinds in ({"separate": True, "packed": True}, {"packed": True}, {}):
        assert (np.asarray(open_image(_tiff(levels, 2, **kinds))) == levels >> 8).all()
    small = (levels >> 8).astype(np.uint8)
    assert (np.asarray(open_image(_tiff(small, 2, separate=True))) == small).all()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (*RED, 255))
    clear.save(tmp_path / "rgba.png")
    clear.save(tmp_path / "rgba.webp", lossless=True)
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, *RED])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=0)
    palette.save(tmp_path / "palette.gif", transparency=0)
    for path in tmp_path.iterdir():
        image = open_image(path)
        assert (image.mode, image.getpixel((0, 0)), image.getpixel((1, 0))) == ("RGB", WHITE, RED)
    half = Image.new("LA", (1, 1), (0, 128))
    half.save(tmp_path / "half.png")
    assert open_image(tmp_path / "half.png").getpixel((0, 0)) == (127, 127, 127)
    head = struct.pack(
        ">IIBBBBB", 2, 1, 16, 0, 0, 0, 0
    )  # 16-bit gray, whose level 7 is transparent
    pixels = zlib.compress(b"\0" + struct.pack(">HH", 7, 65535 // 5))
    chunks = [(b"IHDR", head), (b"tRNS", b"\0\7"), (b"IDAT", pixels), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)
    assert open_image(data).getpixel((0, 0)) == WHITE
    assert open_image(data).getpixel((1, 0)) == (51, 51, 51)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_an_image_is_turned_as_its_exif_orientation_says(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"phone.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = Image.new("RGB", (60, 40), "blue")
    image.paste(RED, (0, 0, 20, 40))  # at the left as stored, above as shown
    image.save(path, exif=exif)
    shown = open_image(path)
    assert shown.size == image_size(path) == (40, 60)
    top, bottom = shown.getpixel((20, 5)), shown.getpixel((20, 50))
    assert top[0] > 200 > 60 > top[2] and bottom[2] > 200 > 60 > bottom[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_odd_fields_in_exif_data_do_not_keep_an_image_from_being_turned(orientation: int) -> None:
    """Some cameras give a text (here the model) the type of a number, which Pillow cannot write again."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Model] = orientation, "X"
    file = io.BytesIO()
    Image.effect_noise((6, 4), 90).save(file, "jpeg", exif=exif)
    data = file.getvalue()
    upright = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    field = struct.Struct(">HHI")
    text, numbers = (field.pack(ExifTags.Base.Model, kind, 2) for kind in (2, 3))
    assert data.count(text) == 1
    for version in (data, data.replace(text, numbers)):
        assert open_image(version).tobytes() == upright.tobytes()


def test_damaged_exif_data_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    Image.new("RGB", (6, 4)).save(path, exif=b"Exif\0\0XX*\0\xff\xff\xff\xff")
    assert open_image(path).size == image_size(path) == (6, 4)


def test_a_strip_that_padding_would_make_huge_is_refused_before_it_is_decoded(
    tmp_path: Path,
) -> None:
    path = tmp_path / "strip.png"
    Image.new("1", (1, 60000)).save(path)
    for look in (open_image, image_size):
        with pytest.raises(
            ImageTooLargeError, match=r"strip\.png: image has too many pixels: 60000 x"
        ):
            look(path)


def test_of_an_animation_the_first_frame_is_shown(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    for suffix in ("gif", "png", "webp", "tif"):
        path = tmp_path / f"two.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert open_image(path).getpixel((0, 0))[2] < 10, suffix


def test_cmyk_is_shown_in_its_colors(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.tif")
    assert open_image(tmp_path / "print.tif").getpixel((4, 4)) == RED


def test_what_is_no_file_or_only_the_start_of_one_is_refused(tmp_path: Path) -> None:
    image = Image.effect_noise((64, 64), 50)
    image.save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(FcitError, match=r"cut\.png: image cannot be decoded"):
        open_image(tmp_path / "cut.png")
    for look in (open_image, image_size, read_image):
        with pytest.raises(FcitError, match="image cannot be read: it is not a file"):
            look(tmp_path)
