"""Files that are written replace files, and nothing else."""

import os
import socket
import stat

import pytest

from sparsehess.commands.job_files import read_job_file
from sparsehess.errors import InputError
from sparsehess.storage.atomic_files import is_taken, refuse_unwritable, write_file


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_what_is_no_file_is_not_replaced(kind, tmp_path):
    path = tmp_path / "out.json"
    if kind == stat.S_IFIFO:
        os.mkfifo(path)
    else:
        taken = socket.socket(socket.AF_UNIX)
        taken.bind(str(path))
        taken.close()
    with pytest.raises(InputError, match="it is a pipe, a device or a socket; name another file"):
        refuse_unwritable(path)
    with pytest.raises(InputError, match="cannot be written: it is a pipe"), write_file(path) as beside:
        beside.write_text("1")
    assert stat.S_IFMT(os.lstat(path).st_mode) == kind
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/2"])
def test_devices_of_the_system_are_not_replaced(name, tmp_path):
    assert is_taken(tmp_path / name)


def test_files_links_and_new_names_are_free(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "gone").symlink_to("nowhere")
    assert not any(is_taken(tmp_path / name) for name in ("file", "link", "gone", "new"))


def test_a_job_file_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "job.toml")
    with pytest.raises(InputError, match=r"^\S*job.toml: no file, but a pipe"):
        read_job_file(tmp_path / "job.toml")
