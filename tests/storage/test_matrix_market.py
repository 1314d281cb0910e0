"""Matrix Market files as programs write them: heads that say symmetric beside what is stored."""

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.errors import InputError
from sparsehess.storage.matrix_market import load_matrix_market

CHAIN = np.diag([2.0, 2.5, 3.0, 1.0]) - np.diag([1.0, 1.5, 0.5], 1) - np.diag([1.0, 1.5, 0.5], -1)


def entries_of(matrix, where=lambda i, j: True):
    """Return the (i, j, value) of a matrix that are not zero, as far as they are wanted."""
    return [(i, j, matrix[i, j]) for i, j in np.argwhere(matrix) if where(i, j)]


def write(path, entries, symmetry="symmetric", form="{:d} {:d} {!r}"):
    """Write a file of four rows."""
    lines = "".join(form.format(i + 1, j + 1, float(value)) + "\n" for i, j, value in entries)
    path.write_text(f"%%MatrixMarket matrix coordinate real {symmetry}\n4 4 {len(entries)}\n{lines}")


def read(path):
    """Return (array, what is said)."""
    matrix, said = load_matrix_market(path)
    return (matrix.toarray() if sp.issparse(matrix) else matrix), said


LOWER = entries_of(CHAIN, lambda i, j: i >= j)
UPPER = entries_of(CHAIN, lambda i, j: i <= j)
BELOW = entries_of(CHAIN, lambda i, j: i > j)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (LOWER, ""),
        (UPPER, ""),
        ([*LOWER[:4], *((j, i, value) for i, j, value in LOWER[4:])], ""),  # some above the diagonal, no pairs
        (entries_of(CHAIN), "both triangles are stored: each entry is taken once"),
        (entries_of(CHAIN)[::-1], "both triangles are stored: each entry is taken once"),
        ([(i, j, value / 2) for i, j, value in (*LOWER, *LOWER)], ""),
        ([(i, j, value / (1 + (i != j))) for i, j, value in LOWER] + [(j, i, value / 2) for i, j, value in BELOW]
         + [(3, 0, 0.25), (3, 0, -0.25)], "3 entries stand in both triangles"),
        ([*LOWER[:-2], (1, 2, 0.5), (2, 1, -0.5), *LOWER[-2:]], "1 entries stand in both triangles"),
    ],
)  # fmt: skip
def test_a_head_that_says_symmetric(entries, says, tmp_path):
    path = tmp_path / "m.mtx"
    write(path, entries)
    found, said = read(path)
    assert np.array_equal(found, CHAIN)
    assert [says in sentence for sentence in said] == ([True] if says else [])


def test_both_triangles_with_entries_in_pieces_are_refused(tmp_path):
    """Halves of entries in either triangle, or elements of a whole matrix: the file does not tell."""
    path = tmp_path / "m.mtx"
    write(path, [(i, j, value / 2) for i, j, value in (*LOWER, *UPPER)])
    with pytest.raises(InputError, match="both triangles are stored, and entries several times: write general"):
        load_matrix_market(path)


def test_a_symmetric_array_of_all_entries(tmp_path):
    path = tmp_path / "m.mtx"
    head = "%%MatrixMarket matrix array real symmetric\n4 4\n"
    path.write_text(head + "\n".join(map(repr, CHAIN.ravel().tolist())))
    found, said = read(path)
    assert np.array_equal(found, CHAIN) and "each entry is taken once" in said[0]
    path.write_text(head + "\n".join(map(repr, (CHAIN + np.triu(CHAIN, 1)).ravel().tolist())))
    with pytest.raises(InputError, match="both triangles are stored, which differ"):
        load_matrix_market(path)
    path.write_text(head + "\n".join(map(repr, CHAIN[np.triu_indices(4)].tolist())))
    assert np.array_equal(read(path)[0], CHAIN) and not read(path)[1]


def test_exponents_of_fortran(tmp_path):
    path, digits = tmp_path / "m.mtx", "{:d} {:d} {:.3e}"
    write(path, LOWER, form=digits)
    path.write_text(path.read_text().replace("e+0", "D+0").replace("e-0", "d-0"))
    assert np.array_equal(read(path)[0], CHAIN)


def test_a_symmetric_matrix_is_square(tmp_path):
    path = tmp_path / "m.mtx"
    path.write_text("%%MatrixMarket matrix coordinate real symmetric\n4 5 1\n1 1 1.0\n")
    with pytest.raises(InputError, match="symmetric, but 4 x 5"):
        load_matrix_market(path)


HEAD = "%%MatrixMarket matrix coordinate real symmetric\n"
SIZES = f"4 4 {len(LOWER)}\n"
LINES = "".join(f"{i + 1} {j + 1} {float(value)!r}\n" for i, j, value in LOWER)


@pytest.mark.parametrize(
    "text",
    [
        " " + HEAD + "   " + SIZES + LINES,
        HEAD + "  % a comment behind blanks\n%\n" + SIZES + LINES,
        "%%MatrixMarket  MATRIX    Coordinate    Real Symmetric\n\n" + SIZES + LINES.replace("\n", "\n\n"),
        HEAD.lower() + SIZES + LINES,
        HEAD.replace("real", "double") + SIZES + LINES,
        "\ufeff" + HEAD + SIZES + LINES,
        (HEAD + SIZES + LINES).replace("\n", "\r\n"),
        (HEAD + SIZES + LINES).replace(" ", "\t"),
        (HEAD + SIZES + LINES).rstrip(),
        HEAD + SIZES + LINES.replace("\n", "\n% a comment among the entries\n", 2),
        HEAD + f"4 4 {len(LOWER) + 7}\n" + LINES  # whole, with zeros on the diagonal for mirrors
        + "".join(f"{j + 1} {i + 1} {float(value)!r}\n" for i, j, value in BELOW) + "1 1 0\n2 2 0\n3 3 0\n4 4 0\n",
    ],
)  # fmt: skip
def test_what_other_programs_write(text, tmp_path):
    path = tmp_path / "m.mtx"
    path.write_bytes(text.encode())
    assert np.array_equal(read(path)[0], CHAIN)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + SIZES + LINES.replace("1 1 2.0", "0 0 2.0"), "outside 1 to 4, 1 to 4; .* number them from 1"),
        (HEAD + SIZES + LINES.replace("4 4 1.0", "5 4 1.0"), "outside 1 to 4, 1 to 4"),
        (HEAD.replace("real", "complex") + SIZES + LINES, "says complex: 4 numbers a line, not 3"),
        (HEAD + SIZES + LINES.replace("\n", " 0.5\n"), "says real: 3 numbers a line, not 4"),
        (HEAD.replace("real", "pattern") + SIZES + LINES, "says pattern: 2 numbers a line, not 3"),
        (LINES, 'it begins with three numbers; .* write "%%MatrixMarket matrix coordinate real general"'),
        ("1,1, 1,1, 2.0D+00\n1,2, 1,1, -1.0\n", "begins with numbers, which is another program's format"),
        ("A plate\n  11  3  5\nRSA   3  3  5  0\n", "a Harwell-Boeing file"),
        ("", "no Matrix Market banner in the first line$"),
        (HEAD + LINES.replace("1 1 2.0", "1 1"), "no line of sizes"),
        (HEAD.replace("symmetric", "triangular") + SIZES + LINES, "not triangular"),
    ],
)
def test_what_is_refused_is_named(text, says, tmp_path):
    path = tmp_path / "m.mtx"
    path.write_text(text)
    with pytest.raises(InputError, match=says):
        load_matrix_market(path)
