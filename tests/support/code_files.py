"""Small files as finite-element codes write them, by their manuals."""

import struct

import numpy as np


def abaqus_labels(path, matrix, labels, half=True, separator=","):
    """Write a matrix as `*MATRIX OUTPUT, FORMAT=MATRIX INPUT` does: node, dof, node, dof, value."""
    lines = [
        separator.join(f"{word}" for word in (*labels[i], *labels[j], f"{matrix[i, j]:.15e}"))
        for i, j in np.argwhere(matrix)
        if not half or j <= i
    ]
    path.write_text("** a comment\n" + "\n".join(lines) + "\n")


def triples(path, matrix, where=lambda i, j: True, base=1, form="{:d} {:d} {:20.13e}\n"):
    """Write lines of row, column, value."""
    there = [(i, j) for i, j in np.argwhere(matrix) if where(i, j)]
    path.write_text("".join(form.format(i + base, j + base, matrix[i, j]) for i, j in there))


def calculix(path, matrix, labels=None):
    """Write a matrix as SOLVER=MATRIXSTORAGE does: by columns of the upper triangle, its diagonal whole."""
    n = len(matrix)
    there = [(i, j) for j in range(n) for i in range(j + 1) if i == j or matrix[i, j]]
    path.write_text("".join(f"{i + 1} {j + 1} {matrix[i, j]:20.13e}\n" for i, j in there))
    if labels is not None:
        path.with_suffix(".dof").write_text("".join(f"{node}.{part}\n" for node, part in labels))


def real(value, width=16):
    """Return a number as a field of Nastran: 1.556000000D+02."""
    return f"{value:{width}.{width - 8}E}".replace("E", "D")


def dmig(path, matrices, labels, long=True, form=6):
    """Write matrices as DMIG cards: of form 6 the lower triangle, by columns."""
    cards = ["$ cards of a test"]
    for name, matrix in matrices.items():
        cards.append(f"DMIG    {name:<8}{0:8d}{form:8d}{2:8d}{0:8d}{'':8}{len(labels):16d}")
        for j, (node, part) in enumerate(labels):
            rows = [i for i in range(len(labels)) if matrix[i, j] and (form != 6 or i >= j)]
            if not rows:
                continue
            if long:
                cards.append(f"DMIG*   {name:<16}{node:16d}{part:16d}")
                cards += [f"*       {labels[i][0]:16d}{labels[i][1]:16d}{real(matrix[i, j])}" for i in rows]
            else:
                fields = [f"{labels[i][0]:8d}{labels[i][1]:8d}{short(matrix[i, j])}{'':8}" for i in rows]
                cards.append(f"DMIG    {name:<8}{node:8d}{part:8d}{'':8}{fields[0]}")
                pairs = [fields[k : k + 2] for k in range(1, len(fields), 2)]
                cards += ["+       " + "".join(pair) for pair in pairs]
    path.write_text("\n".join(cards) + "\n")


def short(value):
    """Return a number in a field of eight: 1.25-3, without a letter."""
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa}{int(exponent):+d}".rjust(8)


def op4_binary(path, matrices, sparse=False, big=False, order="<", double=True):
    """Write matrices as OUTPUT4 does, unformatted."""
    out = bytearray()

    def record(data):
        out.extend(struct.pack(f"{order}i", len(data)) + data + struct.pack(f"{order}i", len(data)))

    for name, (matrix, form) in matrices.items():
        rows, columns = matrix.shape
        kind, per = (2, 2) if double else (1, 1)
        head = struct.pack(f"{order}4i", columns, -rows if big else rows, form, kind)
        record(head + f"{name:<8}".encode())
        for j in range(columns):
            there = np.flatnonzero(matrix[:, j])
            if not len(there):
                continue
            strings = (
                np.split(there, np.flatnonzero(np.diff(there) > 1) + 1)
                if sparse
                else [np.arange(there[0], there[-1] + 1)]
            )
            body = bytearray()
            for rows_of in strings:
                length = per * len(rows_of)
                if sparse and big:
                    body += struct.pack(f"{order}2i", length + 1, rows_of[0] + 1)
                elif sparse:
                    body += struct.pack(f"{order}i", (length + 1) * 65536 + rows_of[0] + 1)
                body += matrix[rows_of, j].astype(f"{order}f{8 if double else 4}").tobytes()
            first = 0 if sparse else there[0] + 1
            record(struct.pack(f"{order}3i", j + 1, first, len(body) // 4) + bytes(body))
        record(struct.pack(f"{order}3i", columns + 1, 1, 1) + np.ones(1, f"{order}f8").tobytes())
    path.write_bytes(bytes(out))


def op4_text(path, matrices, sparse=False, big=False, width=23, each=3):
    """Write matrices as OUTPUT4 does, formatted."""
    lines = []

    def numbers(values):
        words = [f"{value:{width}.{width - 7}E}" for value in values]
        lines.extend("".join(words[k : k + each]) for k in range(0, len(words), each))

    for name, (matrix, form) in matrices.items():
        rows, columns = matrix.shape
        lines.append(
            f"{columns:8d}{-rows if big else rows:8d}{form:8d}{2:8d}{name:<8}1P,{each}E{width}.{width - 7}"
        )
        for j in range(columns):
            there = np.flatnonzero(matrix[:, j])
            if not len(there):
                continue
            if not sparse:
                lines.append(f"{j + 1:8d}{there[0] + 1:8d}{there[-1] + 1 - there[0]:8d}")
                numbers(matrix[there[0] : there[-1] + 1, j])
                continue
            strings = np.split(there, np.flatnonzero(np.diff(there) > 1) + 1)
            words = sum(2 * len(one) + 1 + big for one in strings)
            lines.append(f"{j + 1:8d}{0:8d}{words:8d}")
            for one in strings:
                length, first = 2 * len(one) + 1, one[0] + 1
                lines.append(f"{length:8d}{first:8d}" if big else f"{length * 65536 + first:8d}")
                numbers(matrix[one, j])
        lines.append(f"{columns + 1:8d}{1:8d}{1:8d}")
        numbers([1.0])
    path.write_text("\n".join(lines) + "\n")


def op2(path, matrices, wide=False, order="<", head=True):
    """Write matrices as OUTPUT2 does, with a table between them that is to be passed over."""
    out, word = bytearray(), "q" if wide else "i"
    marks = struct.pack

    def record(data):
        out.extend(marks(f"{order}i", len(data)) + data + marks(f"{order}i", len(data)))

    def markers(*numbers):
        for number in numbers:
            record(marks(f"{order}{word}", number))

    def text(name):
        size = 8 if wide else 4
        return b"".join(name[i : i + 4].ljust(size) for i in (0, 4))

    if head:
        markers(3)
        record(marks(f"{order}3{word}", 11, 30, 26))
        markers(7)
        record(b"NASTRAN FORT TAPE ID CODE - ".ljust(56 if wide else 28))
        markers(2)
        record(text(b"XXXXXXXX"))
        markers(-1, 0)
    for name, (matrix, form) in matrices.items():
        rows, columns = matrix.shape
        markers(2)
        record(text(f"{name:<8}".encode()))
        markers(-1, 7)
        record(marks(f"{order}7{word}", 101, columns, rows, form, 2, 9, 5000))
        markers(-2, 1, 0, 2)
        record(text(f"{name:<8}".encode()))
        number = -3
        for j in range(columns):
            markers(number, 1, 1)
            there = np.flatnonzero(matrix[:, j])
            for one in np.split(there, np.flatnonzero(np.diff(there) > 1) + 1) if len(there) else []:
                markers(len(one) * (1 if wide else 2))
                first = marks(f"{order}{word}", one[0] + 1)
                record(first + matrix[one, j].astype(f"{order}f8").tobytes())
            number -= 1
        markers(number, 1, 0, 0)
        # A table of one record.
        markers(2)
        record(text(b"GEOM1   "))
        markers(-1, 7)
        record(marks(f"{order}7{word}", *range(7)))
        markers(-2, 1, 0, 2)
        record(text(b"GEOM1   "))
        markers(-3, 1, 0, 3)
        record(marks(f"{order}3{word}", 1, 2, 3))
        markers(-4, 1, 0, 0)
    markers(0)
    path.write_bytes(bytes(out))
