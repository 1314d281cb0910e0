"""What the tests share: cases with known answers, functions, damaged inputs, runs that are stopped or killed."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
