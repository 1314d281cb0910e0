"""The tables of job files: each key that they tell, with a value as they tell it, is taken by its command."""

import importlib.util

import pytest

from sparsehess.cli import command_line
from sparsehess.commands import job_files
from sparsehess.errors import InputError
from support import ROOT

_spec = importlib.util.spec_from_file_location("job_keys", ROOT / "docs" / "_extensions" / "job_keys.py")
job_keys = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(job_keys)

LINE = command_line()


def example(said):
    """Return a value of a kind, as TOML; the first where there are several."""
    if said.startswith("list of"):
        many = next((int(word) for word in said.split() if word.isdigit()), 2)
        return "[" + ", ".join(['"a"' if "texts" in said else "1"] * many) + "]"
    kinds = {"whole number": "3", "number": "0.5", "text": '"a.py:b"', "table `{ name = value }`": "{ a = 1 }"}
    return kinds.get(said) or ('"a.npz"' if said.startswith("path") else said.split(",")[0].strip("`"))


def expected(found, command):
    """Return what a job of a command must name besides a key."""
    return {action.dest: '"a.py:b"' for action in found.values() if not action.option_strings or action.required}


def is_of(line, command):
    """Return whether a row of the table tells of a command."""
    names = line.split(" | ")[2]
    return names == "all" or (f"`{command}`" in names) != names.startswith("all but")


@pytest.mark.parametrize("command", job_keys.commands())
def test_each_key_takes_what_the_table_says(command, tmp_path):
    found = job_keys.keys(command)
    told = [line for line in job_keys.tables("<!-- keys -->").splitlines()[2:] if is_of(line, command)]
    assert {line.split("`")[1] for line in told} == set(found)
    for key, action in found.items():
        lines = {**expected(found, command), key: example(job_keys.value(action))}
        path = tmp_path / "job.toml"
        path.write_text(
            "".join(f"{name} = {value}\n" for name, value in {"command": f'"{command}"', **lines}.items())
        )
        words, _ = job_files.job_command_line(path, LINE)
        if action.nargs == 0 and key == "explain" and command == "check":
            continue  # it shows a text in place of running
        arguments = LINE.parse(words)
        assert getattr(arguments, action.dest) not in (None, [], False), key


def test_keys_of_submit_and_others(tmp_path):
    told = job_keys.tables("<!-- submit -->")
    for key, action in job_keys.keys("submit").items():
        if not action.option_strings:
            continue
        assert f"| `{key}` |" in told
        (tmp_path / "job.toml").write_text(
            f'command = "eigs"\ninput = "K.npz"\n[submit]\n{key} = {example(job_keys.value(action))}\n'
        )
        words, _ = job_files.expand_job_file(["submit", str(tmp_path / "job.toml")], LINE)
        assert getattr(LINE.parse(words), action.dest) not in (None, [], False), key
    for name in set(LINE.parsers) - set(job_keys.commands()):
        (tmp_path / "job.toml").write_text(f'command = "{name}"\n')
        with pytest.raises(InputError, match="is none of"):
            job_files.job_command_line(tmp_path / "job.toml", LINE)
