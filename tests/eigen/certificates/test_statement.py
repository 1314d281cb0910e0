"""The statement of what a certificate proves is one and the same everywhere."""

from pathlib import Path

from sparsehess.eigen.certificates.statement import STATEMENT
from sparsehess.eigen.solvers.spectrum_targets import SAFE


def test_the_architecture_has_the_statement_word_by_word():
    text = (Path(__file__).parents[3] / "ARCHITECTURE.md").read_text()
    assert f"```\n{STATEMENT}```\n" in text


def test_the_statement_names_the_margin_that_is_asked_for():
    assert f"the margin is above {SAFE:g}" in " ".join(STATEMENT.split())
