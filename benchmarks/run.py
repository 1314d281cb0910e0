"""Run all benchmarks, one after another."""

import subprocess
import sys
from pathlib import Path

NAMES = """survey overhead pipeline coloring coloring_scaling derivatives eigen estimates learning embedding
service"""

for name in NAMES.split():
    print(f"\n=== {name}", flush=True)
    subprocess.run([sys.executable, str(Path(__file__).parent / f"{name}.py")], check=True)
