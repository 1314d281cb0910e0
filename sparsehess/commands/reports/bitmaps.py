"""Small bitmaps: PNG, and pictures of patterns and colourings as colours."""

from __future__ import annotations

import struct
import zlib

import numpy as np

# Of a square with one entry, and of the fullest.
_LIGHT, _DARK = np.array([158, 188, 218.0]), np.array([8, 38, 84.0])

# Hues of colours that follow each other are so far apart, parts of a turn.
GOLDEN = 0.618034


def png(rgb: np.ndarray) -> bytes:
    """Return (rows, columns, 3) bytes as a PNG file. Not collective."""
    rows, columns, _ = rgb.shape
    lines = np.zeros((rows, 1 + 3 * columns), np.uint8)
    lines[:, 1:] = rgb.reshape(rows, 3 * columns)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", head),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            chunk(b"IEND", b""),
        ]
    )


def shade_counts(picture: np.ndarray) -> np.ndarray:
    """Return numbers of entries as colours, white for none, on a logarithmic scale. Not collective."""
    depth = np.log1p(picture.astype(np.float64))
    most = max(float(depth.max(initial=0.0)), np.log(2.0))
    depth, least = depth / most, np.log(2.0) / most
    share = np.clip((depth - least) / max(1.0 - least, 1e-9), 0.0, 1.0)[..., None]
    if least >= 1.0:  # a square has one entry at most
        share = np.ones_like(share)
    shaded = _LIGHT + share * (_DARK - _LIGHT)
    return np.where(picture[..., None] > 0, shaded, 255).astype(np.uint8)


def hue_colors(numbers: np.ndarray) -> np.ndarray:
    """Return colours by their numbers, white for -1; numbers that follow each other get unlike hues."""
    hue = (numbers * GOLDEN) % 1.0 * 6.0
    # Saturation and value alternate, so that near hues differ in them.
    value = np.array([0.86, 0.62, 0.74])[numbers % 3]
    ramp = np.abs((hue[..., None] + np.array([0.0, 4.0, 2.0])) % 6.0 - 3.0) - 1.0
    rgb = value[..., None] * (1.0 - 0.82 * (1.0 - np.clip(ramp, 0.0, 1.0)))
    return np.where(numbers[..., None] >= 0, 255 * rgb, 255).astype(np.uint8)
