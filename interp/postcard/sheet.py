"""A contact sheet: many pictures side by side in one PNG file, for a person to look at."""

import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from hooks.disk import write_file
from hooks.errors import InvalidArgument

GAP = 2


def write_sheet(
    pixels: UInt8[np.ndarray, "batch 3 height width"], path: Path, *, columns: int = 9, enlarged: int = 3
) -> Path:
    """Write pictures in rows to a PNG file, each pixel enlarged to a square.

    Raises:
        InvalidArgument: no pictures, or no columns.

    Examples:
        ```python
        write_sheet(draw(scenes("test", 36)).pixels, "sheet.png")
        ```
    """
    if not len(pixels) or columns < 1 or enlarged < 1:
        raise InvalidArgument(f"{len(pixels)} pictures in {columns} columns, {enlarged} times: give at least 1 of each")
    rows = -(-len(pixels) // columns)
    height, width = (side + GAP for side in pixels.shape[2:])
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(pixels):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height - GAP, x : x + width - GAP] = picture.transpose(1, 2, 0)
    with write_file(path) as partial:
        partial.write_bytes(png(sheet.repeat(enlarged, 0).repeat(enlarged, 1)))
    return path


def png(picture: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """A picture as the bytes of a PNG file (ISO/IEC 15948), eight bits a colour and no filter.

    Examples:
        >>> png(np.zeros((1, 1, 3), np.uint8))[1:4]
        b'PNG'
    """
    height, width, _ = picture.shape
    lines = b"".join(b"\0" + line.tobytes() for line in picture)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
