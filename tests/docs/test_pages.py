"""Every command and every program of a page is run, as it stands there, after those before it."""

import re
import sys

import pytest

from support import ROOT
from support.fenced_blocks import fenced_blocks, page_program
from support.user_copy import run, write_copy

DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(DOCS)): blocks
    for path in sorted(DOCS.rglob("*.md"))
    if "gallery" not in path.parts and (blocks := fenced_blocks(path.read_text(), "sh", "python"))
}
HOSTS = ("ase", "casadi", "dolfinx", "jax", "skfem", "torch")


@pytest.mark.thorough
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, tmp_path):
    text = "\n".join(code for _, code, _ in PAGES[page])
    for host in HOSTS:
        if re.search(rf"^\s*(from|import) {host}\b", text, re.MULTILINE):
            pytest.importorskip(host)
    copy = write_copy(tmp_path / "sparsehess")
    (copy / "page.py").write_text(page_program(page, PAGES[page]))
    done = run([sys.executable, "page.py"], copy)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


PAGE = """- a point

  ```python
  x = 2
  ```

```text
x
```

```sh
echo one > file
```

```python
print(x, open("file").read())
```
"""


def test_what_is_run_and_in_which_order(tmp_path):
    blocks = fenced_blocks(PAGE, "sh", "python")
    assert [(language, line) for language, _, line in blocks] == [("python", 4), ("sh", 12), ("python", 16)]
    (tmp_path / "page.py").write_text(page_program("page.md", blocks))
    assert run([sys.executable, "page.py"], tmp_path).stdout == "2 one\n\n"
    blocks.insert(1, ("sh", "false\necho on\n", 8))
    (tmp_path / "page.py").write_text(page_program("page.md", blocks))
    done = run([sys.executable, "page.py"], tmp_path)
    assert done.returncode == 1 and "page.md:8: these lines have failed" in done.stderr and not done.stdout
