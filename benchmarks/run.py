"""Run all benchmarks, one after another."""

import subprocess
import sys
from pathlib import Path

for name in ("survey", "overhead", "pipeline", "coloring", "coloring_scaling", "derivatives", "eigen"):
    print(f"\n=== {name}", flush=True)
    subprocess.run([sys.executable, str(Path(__file__).parent / f"{name}.py")], check=True)
