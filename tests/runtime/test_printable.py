"""Texts of others, before they reach a terminal."""

import sys

from sparsehess.runtime.printable import printable


def test_what_a_terminal_would_obey_is_shown_by_its_code():
    assert printable("\x1b[2Jgone\x07\r\x9b31m") == "\\x1b[2Jgone\\x07\\r\\x9b31m"
    assert printable("left\u202etxt.exe") == "left\\u202etxt.exe"
    assert printable("two\nlines\tand a tab") == "two\nlines\tand a tab"
    assert printable("two\nlines\tand a tab", "") == "two\\nlines\\tand a tab"
    assert printable("a\u2028b\u2029c\x85d", "") == "a\\u2028b\\u2029c\\x85d"
    assert printable("no text: \udcff") == "no text: \\udcff"


def test_letters_of_all_languages_stay():
    for text in ("λ = 3·10⁻⁸", "質量行列", "Ünïcödé", "non\u00a0breaking, thin\u2009blank", "👍", ""):
        assert printable(text) == text


def test_no_character_passes_that_is_neither_shown_nor_a_blank():
    every = map(chr, range(sys.maxunicode + 1))
    for one in every:
        shown = printable(one, "")
        assert shown == one or (shown.isascii() and shown.isprintable())
        shown.encode()
