"""Blocks of code in Markdown, and a program that runs those of a page one after another."""

import re

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)

# Programs of a page are one: they share their names. Shells know nothing of an MPI that these have started.
_RUNNER = """
import linecache, os, subprocess

BLOCKS = {blocks!r}
started_with = dict(os.environ)
names = {{"__name__": "__main__"}}
for language, code, line in BLOCKS:
    if language == "python":
        place = f"{page}:{{line}}"
        linecache.cache[place] = len(code), None, code.splitlines(keepends=True), place
        exec(compile(code, place, "exec"), names)
    elif subprocess.run(["bash", "-e", "-c", code], env=started_with).returncode:
        raise SystemExit(f"{page}:{{line}}: these lines have failed:\\n{{code}}")
"""


def fenced_blocks(text, *languages):
    """Return (language, code, line) of the blocks in these languages, in their order."""
    return [
        (
            found[2],
            re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE),
            text.count("\n", 0, found.start(3)) + 1,
        )
        for found in _FENCE.finditer(text)
        if found[2] in languages
    ]


def page_program(page, blocks):
    """Return the text of a Python program that runs the blocks of a page."""
    return _RUNNER.format(page=page, blocks=blocks)
