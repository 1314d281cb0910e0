"""The words of the answers: lines on the page are those that commands print, and none of the counts is missing."""

import re

import numpy as np
import pytest

from sparsehess.coloring import KINDS
from sparsehess.commands.reports.tables import count_line
from sparsehess.eigen.problem.count import Count
from support import ROOT
from support.command_line import batch

PAGE = (ROOT / "docs" / "reference" / "glossary.md").read_text()

NUMBER = re.compile(r"[-+±]?\d+(\.\d+)?(e[-+]?\d+)?")


def test_every_line_is_printed(tmp_path, monkeypatch):
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    blocks = re.findall(r"^```text\n(.*?)^```", PAGE, flags=re.M | re.S)
    examples = [example.splitlines() for block in blocks for example in block.strip().split("\n\n")]
    told = batch(tmp_path, [command.removeprefix("$ sparsehess ") for command, *_ in examples], 1)
    assert len(told) == len(examples) > 5
    for (codes, out, err, _), (command, *lines) in zip(told, examples, strict=True):
        assert codes in ([0], [4]), err
        printed = {NUMBER.sub("#", line) for line in out.splitlines()}
        assert {NUMBER.sub("#", line) for line in lines} <= printed, (command, out)


COUNTS = [
    (Count((-np.inf, 1.0), 3, 3, True, margin=99.0), {}, "3 found", "none missed"),
    (Count((-np.inf, 1.0), 3, 3, True, repairs=1, margin=99.0), {}, "none missed after 1 repair"),
    (Count((-np.inf, 1.0), 9, 9, True, margin=99.0), {"nulls": 6, "names": ["translation x"] * 6}, "6 rigid"),
    (Count((-np.inf, 1.0), 9, 9, True, margin=99.0), {"nulls": 1, "names": ["constant"]}, "1 constant"),
    (Count((-np.inf, 1.0), 9, 9, True, margin=99.0), {"nulls": 2}, "2 null vectors"),
    (Count((-np.inf, 1.0), 3, 3, True, margin=99.0), {"zeros": 1}, "1 zero"),
    (
        Count((-np.inf, 1.0), 3, 2, True, margin=99.0, group=1),
        {},
        "1 more from the last one on, not asked for",
    ),
    (Count((-np.inf, 1.0), 4, 3, False, margin=99.0), {}, "NOT certified: 1 MISSED"),
    (Count((-np.inf, 1.0), 3, 4, False, margin=99.0), {}, "NOT certified: 1 more found than there are"),
    (Count((-np.inf, 1.0), 3, 3, False, margin=2.0), {}, "NOT certified: rounding can move one across an end"),
]


@pytest.mark.parametrize(("count", "more", "words"), [(count, more, words) for count, more, *words in COUNTS])
def test_the_page_has_the_words_of_counts(count, more, words):
    line = count_line(count, **more)
    for word in words:
        assert word in line and word in PAGE


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((-np.inf, 1.0), "below B"),
        ((1.0, np.inf), "above A"),
        ((0.0, 1.0), "in (A, B)"),
        ((1.0, -1.0), "below A and above B"),
        ((-np.inf, np.inf), "in all"),
    ],
)
def test_the_page_has_the_places_of_counts(ends, words):
    assert f"`{words}`" in PAGE
    assert re.sub(r"-?1|0", "#", Count(ends, 0, 0, True).place) == re.sub(r"[AB]", "#", words)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_the_kinds_of_colourings(kind):
    assert re.search(rf"^{kind}\b|, {kind}$", PAGE, flags=re.M)
