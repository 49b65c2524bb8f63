"""`process_image`: fetched under limits, changed as asked, written whole."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

from examples.exchange import Door, Limits, Unavailable
from examples.images import Edit, Studio, process, transform
from examples.ssrf import ForbiddenTarget, Policy
from headrace import Permanent, RetryAfter

TASK = "550e8400-e29b-41d4-a716-446655440000"
FORMATS = ["PNG", "JPEG", "GIF", "WEBP"]
MANY = 1_000_000
PATIENT = Limits(total_s=5, reply_bytes=MANY)


def picture(kind: str = "PNG", size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: Any) -> bytes:
    """An encoded image: red, its left upper quarter blue."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (0, 0, size[0] // 2, size[1] // 2))
    out = io.BytesIO()
    image.convert(mode).save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be this large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def names_in(folder: Path) -> list[str]:
    """The files of a folder."""
    return sorted(path.name for path in folder.iterdir())


@asynccontextmanager
async def image_server(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]] | bytes, output: Path, limits: Limits = PATIENT
) -> AsyncIterator[tuple[str, Studio]]:
    """A server on loopback with one image: its URL, and a studio that may fetch there."""

    async def plain(request: web.Request) -> web.StreamResponse:
        assert isinstance(handler, bytes)
        return web.Response(body=handler)

    app = web.Application()
    app.router.add_get("/image", plain if isinstance(handler, bytes) else handler)
    async with TestServer(app) as server:
        assert server.port is not None
        policy = Policy("EXAMPLES_IMAGE_HOSTS", loopback=frozenset({("127.0.0.1", server.port)}))
        yield f"http://127.0.0.1:{server.port}/image", Studio(Door(policy, limits), output, MANY)


@pytest.mark.parametrize("kind", FORMATS)
async def test_an_image_is_fetched_changed_and_written_in_its_format(kind: str, tmp_path: Path) -> None:
    async with image_server(picture(kind), tmp_path / "new" / "folder") as (url, studio):
        result = await process(TASK, url, Edit("resize", width=30), studio)
    path = tmp_path / "new" / "folder" / f"{TASK}.{kind.lower()}"
    assert (result.path, result.format, result.bytes) == (str(path), kind, path.stat().st_size)
    with Image.open(path) as written:
        assert (written.format, written.size) == (kind, (30, 20))
    assert (result.width, result.height) == (30, 20)
    assert names_in(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("edit", "size"),
    [
        (Edit("resize"), (800, 533)),
        (Edit("resize", width=30), (30, 20)),
        (Edit("resize", height=10), (15, 10)),
        (Edit("resize", width=7, height=9), (7, 9)),
        (Edit("resize", width=1), (1, 1)),
        (Edit("thumbnail"), (60, 40)),
        (Edit("thumbnail", width=30), (30, 20)),
        (Edit("thumbnail", width=30, height=10), (15, 10)),
        (Edit("grayscale"), (60, 40)),
        (Edit("rotate"), (40, 60)),
        (Edit("rotate", angle=180), (60, 40)),
        (Edit("rotate", angle=-90), (40, 60)),
        (Edit("rotate", angle=45), (72, 72)),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_each_operation_in_each_format_gives_the_size_it_says(kind: str, edit: Edit, size: tuple[int, int]) -> None:
    image, format_ = transform(picture(kind), edit, MANY)
    image.save(io.BytesIO(), format_)
    assert format_ == kind
    assert abs(image.width - size[0]) <= 1
    assert abs(image.height - size[1]) <= 1


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    + [("JPEG", "L"), ("JPEG", "CMYK"), ("GIF", "P"), ("GIF", "L"), ("WEBP", "RGBA")],
)
@pytest.mark.parametrize("operation", ["resize", "thumbnail", "grayscale", "rotate"])
def test_every_kind_of_pixel_can_be_changed_and_written(kind: str, mode: str, operation: Any) -> None:
    source = picture(kind) if mode == "I;16" else picture(kind, mode=mode)
    if mode == "I;16":
        out = io.BytesIO()
        Image.new("I;16", (60, 40), 40_000).save(out, "PNG")
        source = out.getvalue()
    image, format_ = transform(source, Edit(operation), MANY)
    image.save(io.BytesIO(), format_)


def test_black_and_white_becomes_gray_so_that_it_can_be_smooth() -> None:
    image, _ = transform(picture(mode="1"), Edit("resize", width=7), MANY)
    assert image.mode == "L"


def test_rotation_is_clockwise() -> None:
    """The blue quarter, left and upper, comes to the right."""
    image, _ = transform(picture(), Edit("rotate", angle=90), MANY)
    assert image.getpixel((39, 0)) == (0, 0, 255)
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_grayscale_has_no_colour_and_keeps_transparency() -> None:
    assert transform(picture(), Edit("grayscale"), MANY)[0].mode == "L"
    assert transform(picture(mode="RGBA"), Edit("grayscale"), MANY)[0].mode == "LA"


def test_a_camera_on_its_side_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image, _ = transform(picture("JPEG", exif=exif), Edit("thumbnail"), MANY)
    assert image.size == (40, 60)


def test_where_a_photo_was_taken_is_not_passed_on() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    source = picture("JPEG", exif=exif)
    assert b"taken at home" in source
    out = io.BytesIO()
    image, kind = transform(source, Edit("grayscale"), MANY)
    image.save(out, kind)
    assert b"taken at home" not in out.getvalue()


@pytest.mark.parametrize("size", [(1001, 1000), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(size: tuple[int, int]) -> None:
    with pytest.raises(Permanent, match=r"pixels"):
        transform(png_header(*size), Edit("thumbnail"), MANY)


@pytest.mark.parametrize("edit", [Edit("resize", width=1001, height=1000), Edit("resize", width=9_000_000)])
def test_an_image_is_not_blown_up_beyond_the_limit(edit: Edit) -> None:
    with pytest.raises(Permanent, match=r"After resize the image has .* at most 1000000"):
        transform(picture(), edit, MANY)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no image that is read here"),
        (b"<html>not found</html>", "no image that is read here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image that is read here"),
        (picture("TIFF"), "no image that is read here"),
        (picture()[:-40], "damaged"),
        (picture("JPEG")[:400], "damaged"),
        (png_header(50, 50), "damaged"),
    ],
    ids=["empty", "html", "postscript", "tiff", "cut png", "cut jpeg", "no pixels"],
)
def test_what_is_no_whole_image_is_permanent(data: bytes, said: str) -> None:
    with pytest.raises(Permanent, match=said):
        transform(data, Edit("thumbnail"), MANY)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Edit("rotate", width=10), "rotate takes no width or height"),
        (Edit("grayscale", height=10), "grayscale takes no width or height"),
        (Edit("resize", angle=10), "resize takes no angle; did you mean rotate"),
    ],
)
async def test_an_argument_of_another_operation_is_permanent(edit: Edit, said: str, tmp_path: Path) -> None:
    async with image_server(picture(), tmp_path) as (url, studio):
        with pytest.raises(Permanent, match=said):
            await process(TASK, url, edit, studio)


@pytest.mark.parametrize("announced", [True, False], ids=["Content-Length", "chunked"])
async def test_a_file_over_the_limit_is_permanent(announced: bool, tmp_path: Path) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if announced:
            response.content_length = 1 << 40
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))

    async with image_server(endless, tmp_path) as (url, studio):
        with pytest.raises(Permanent, match="more than 1000000 bytes"):
            await process(TASK, url, Edit("thumbnail"), studio)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("ending", ["slow", "cut"])
async def test_a_file_that_does_not_arrive_whole_is_tried_again(ending: str, tmp_path: Path) -> None:
    for_ever = asyncio.Event()

    async def partial(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(picture()[:50])
        if ending == "slow":
            await for_ever.wait()
        else:
            assert request.transport
            request.transport.close()
        return response

    limits = Limits(total_s=0.5 if ending == "slow" else 5)
    async with image_server(partial, tmp_path, limits) as (url, studio):
        with pytest.raises(Unavailable, match="stopped sending before the image was complete"):
            await process(TASK, url, Edit("thumbnail"), studio)
        for_ever.set()


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (404, {}, Permanent),
        (302, {"Location": "http://169.254.169.254/latest/meta-data/"}, Permanent),
        (500, {}, Unavailable),
        (503, {"Retry-After": "9"}, RetryAfter),
    ],
)
async def test_the_status_decides(
    status: int, headers: dict[str, str], outcome: type[Exception], tmp_path: Path
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    async with image_server(answer, tmp_path) as (url, studio):
        with pytest.raises(outcome, match=f"answered {status}"):
            await process(TASK, url, Edit("thumbnail"), studio)


async def test_an_address_inside_is_refused(tmp_path: Path) -> None:
    async with image_server(picture(), tmp_path) as (_, studio):
        with pytest.raises(ForbiddenTarget):
            await process(TASK, "http://169.254.169.254/latest/meta-data/", Edit("thumbnail"), studio)
