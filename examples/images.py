"""Images: fetched from an address in the payload, changed, written in the format they came in."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
from PIL import Image, ImageOps, UnidentifiedImageError

from examples.exchange import Door, Request, Unavailable, exchange
from examples.files import atomic_file, output_path
from headrace import Permanent

Operation = Literal["resize", "thumbnail", "grayscale", "rotate"]

# Only what browsers use: some other decoders start programs or have a long record of holes.
_FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP")
_DEFAULT_WIDTH: Final = 800
_DEFAULT_BOX: Final = 128
_DEFAULT_ANGLE: Final = 90.0


class Processed(msgspec.Struct, frozen=True):
    """What was written, and where."""

    path: str
    format: str
    width: int
    height: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Edit:
    """What to do with an image. What is None takes a default, or follows from the shape of the image."""

    operation: Operation
    width: int | None = None
    """Pixels. `resize` with one of both keeps the shape, with none makes it 800 wide. `thumbnail`: a box."""
    height: int | None = None
    """Pixels."""
    angle: float | None = None
    """Degrees clockwise, for `rotate`; default 90."""


@dataclass(frozen=True, slots=True)
class Studio:
    """Where images come from and go to, and what they may cost."""

    door: Door
    output: Path
    max_pixels: int = 40_000_000
    """Width times height, before and after: a few kilobytes can claim billions (a decompression bomb)."""


def check(edit: Edit) -> None:
    """Raises Permanent for an argument that the operation does not use: it was meant for another."""
    sized = edit.width is not None or edit.height is not None
    if edit.operation in ("grayscale", "rotate") and sized:
        raise Permanent(f"{edit.operation} takes no width or height; did you mean resize or thumbnail?")
    if edit.operation != "rotate" and edit.angle is not None:
        raise Permanent(f"{edit.operation} takes no angle; did you mean rotate?")


async def process(task_id: str, url: str, edit: Edit, studio: Studio) -> Processed:
    """Fetch, change, write. The work on pixels runs in a thread, so that the event loop stays free.

    Raises Permanent for an image or a request that cannot be served, Unavailable or RetryAfter for a server
    that cannot answer now.
    """
    check(edit)
    data = await _fetch(url, studio.door)
    return await asyncio.to_thread(_edit_and_write, task_id, data, edit, studio)


async def _fetch(url: str, door: Door) -> bytes:
    reply = await exchange(Request("GET", url), door)
    reply.require_success(datetime.now(UTC))
    if reply.end == "too_large":
        raise Permanent(f"The image at {reply.target} has more than {door.limits.reply_bytes} bytes, the limit here.")
    if reply.end == "broken":
        raise Unavailable(f"{reply.target} stopped sending before the image was complete.")
    return reply.body


def _edit_and_write(task_id: str, data: bytes, edit: Edit, studio: Studio) -> Processed:
    image, kind = transform(data, edit, studio.max_pixels)
    path = output_path(studio.output, task_id, kind.lower())
    with atomic_file(path) as file:
        image.save(file, format=kind)
        size = file.tell()
    return Processed(str(path), kind, image.width, image.height, size)


def transform(data: bytes, edit: Edit, max_pixels: int) -> tuple[Image.Image, str]:
    """The changed image and its format. Raises Permanent for what is no image, damaged or too large."""
    with _decoding(), Image.open(io.BytesIO(data), formats=_FORMATS) as source:
        kind = str(source.format)
        _bound(source.size, max_pixels, "The image")
        source.load()
        image = _plain(ImageOps.exif_transpose(source))
    _bound(_new_size(image, edit), max_pixels, f"After {edit.operation} the image")
    return _apply(image, edit), kind


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Permanent(f"The image claims far more pixels than this worker decodes: {error}") from error
    except UnidentifiedImageError as error:
        raise Permanent(f"The address holds no image that is read here ({', '.join(_FORMATS)}).") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise Permanent(f"The image is damaged: {error}") from error


def _bound(size: tuple[int, int], max_pixels: int, subject: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise Permanent(f"{subject} has {width} by {height} pixels; at most {max_pixels} are handled here.")


def _plain(image: Image.Image) -> Image.Image:
    # Palettes and bit maps cannot be interpolated.
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.convert("L") if image.mode == "1" else image


def _new_size(image: Image.Image, edit: Edit) -> tuple[int, int]:
    width, height = edit.width, edit.height
    if edit.operation != "resize":
        return image.size
    if width is None and height is None:
        width = _DEFAULT_WIDTH
    if width is None:
        width = max(1, round(image.width * (height or 1) / image.height))
    if height is None:
        height = max(1, round(image.height * width / image.width))
    return width, height


def _apply(image: Image.Image, edit: Edit) -> Image.Image:
    match edit.operation:
        case "resize":
            return image.resize(_new_size(image, edit), Image.Resampling.LANCZOS)
        case "thumbnail":
            box = (edit.width or edit.height or _DEFAULT_BOX, edit.height or edit.width or _DEFAULT_BOX)
            image.thumbnail(box, Image.Resampling.LANCZOS)
            return image
        case "grayscale":
            return image.convert("LA" if image.has_transparency_data else "L")
        case "rotate":
            # Pillow turns the other way.
            angle = -(_DEFAULT_ANGLE if edit.angle is None else edit.angle)
            return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=_corner(image.mode))


def _corner(mode: str) -> str | None:
    return "white" if mode in ("L", "RGB") else None
