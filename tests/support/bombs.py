"""Files that unfold to far more than their size, made in no time: one deflated block many times over."""

import gzip
import io
import struct
import zlib

import numpy as np

# Bytes of a block.
BLOCK = 2**20


def deflated(head, fill, blocks):
    """Return (deflated bytes, check sum, size) of a head and then so many blocks of a text that is repeated."""
    block = fill * (BLOCK // len(fill))
    one = zlib.compressobj(9, zlib.DEFLATED, -15)
    repeated = one.compress(block) + one.flush(zlib.Z_FULL_FLUSH)
    first, last = (zlib.compressobj(9, zlib.DEFLATED, -15) for _ in range(2))
    packed = first.compress(head) + first.flush(zlib.Z_FULL_FLUSH) + repeated * blocks + last.flush()
    check = zlib.crc32(head)
    for _ in range(blocks):
        check = zlib.crc32(block, check)
    return packed, check, len(head) + blocks * len(block)


def write_zip(path, members):
    """Write an archive of {name: (deflated bytes, check sum, size)}."""
    heads = []
    with open(path, "wb") as file:
        for name, (packed, check, size) in members.items():
            text = name.encode()
            facts = struct.pack("<HHHHHIII", 20, 0, 8, 0, 0, check, len(packed), size)
            facts += struct.pack("<HH", len(text), 0)
            heads.append(b"PK\1\2\x14\0" + facts + struct.pack("<HHHII", 0, 0, 0, 0, file.tell()) + text)
            file.write(b"PK\3\4" + facts + text + packed)
        place, listed = file.tell(), b"".join(heads)
        file.write(listed)
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, len(heads), len(heads), len(listed), place, 0))


def head_of_array(shape, dtype="<f8"):
    """Return the head of an array of NumPy."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_2_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def member(array):
    """Return an array as a member."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array))
    return deflated(stream.getvalue(), b"\0", 0)


def zeros(blocks, dtype="<f8", shape=None):
    """Return a member of so many blocks of zeros, of a shape that may be another."""
    return deflated(head_of_array(shape or (blocks * BLOCK // np.dtype(dtype).itemsize,), dtype), b"\0", blocks)


def write_gz(path, head, fill, blocks, size=None):
    """Write a .gz of a head and a text that is repeated; its size at the end may be a false one."""
    packed, check, true = deflated(head, fill, blocks)
    with open(path, "wb") as file:
        file.write(gzip.compress(b"")[:10] + packed)
        file.write(struct.pack("<II", check, (true if size is None else size) % 2**32))
