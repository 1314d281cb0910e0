"""The page of exit statuses: each command in it ends with the status of its section, and says what is there."""

import re

import pytest

from support import ROOT
from support.command_line import batch, run

PAGE = (ROOT / "docs" / "reference" / "exit-statuses.md").read_text()

NUMBER = re.compile(r"[-+±]?\d+(\.\d+)?(e[-+]?\d+)?")


def examples():
    """Return (status, command, what it says); the status is that of the section, 0 where nothing is said."""
    found = []
    for section in re.split(r"^## ", PAGE, flags=re.M):
        status = re.match(r"Status (\d+)", section)
        for block in re.findall(r"^```text\n(.*?)^```", section, flags=re.M | re.S):
            for example in block.strip().split("\n\n"):
                command, *said = example.splitlines()
                assert command.startswith("$ sparsehess ") and status, command
                # A folder in use is a refusal in the section of what is stopped.
                refused = "of a run that has not ended" in " ".join(said) or "of another problem" in " ".join(said)
                number = 0 if not said else 2 if refused else int(status[1])
                found.append((number, command.removeprefix("$ sparsehess "), " ".join(said)))
    return found


def plain(text, folder):
    """Return a message without what differs from run to run: numbers, and the folder."""
    return NUMBER.sub("#", " ".join(text.split()).replace(f"{folder}/", ""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("statuses")
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        exec(program, {})
    return place


def test_every_message_is_as_the_page_says(folder, monkeypatch):
    monkeypatch.setenv("SPARSEHESS_JOBS", str(folder / "jobs"))
    every = examples()
    assert {status for status, *_ in every} == {0, 2, 3, 4, 75}
    # What is saved belongs to a process, which the next one goes on from.
    alone = [one for one in every if "--checkpoint" in one[1]]
    together = [one for one in every if one not in alone]
    told = [(codes, err) for codes, _, err, _ in batch(folder, [command for _, command, _ in together], 1)]
    told += [([code], err) for code, _, err, _ in (run(folder, command) for _, command, _ in alone)]
    for (codes, err), (status, command, said) in zip(told, together + alone, strict=True):
        print(command)  # shown where it fails
        assert codes == [status], err
        assert plain(err, folder) == plain(said, folder)
