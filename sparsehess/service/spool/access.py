"""Who may submit to a spool, as modes of its folders. Nothing here depends on the umask.

    who        spool  new/ queued/ cancel/  running/ done/ failed/
    PRIVATE    0700   0700                  0700
    EVERYBODY  0755   1733                  0711
    a group    0750   1730                  0710

Others can put something into the boxes, and reach what they know the name of. They list nothing, and the sticky
bit keeps them from removing or renaming what is another's.
"""

from __future__ import annotations

import grp
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sparsehess.errors import InputError
from sparsehess.service.spool.layout import BOXES, FOLDERS


@dataclass(frozen=True)
class Access:
    """Who may submit to a spool.

    Attributes
    ----------
    who
        In words.
    spool, box, state
        Modes of the spool, of what others put something into, and of what they find their own in.
    group
        Unix group of the folders; None for the one that they have.
    """

    who: str
    spool: int
    box: int
    state: int
    group: int | None = None

    def prepare(self, path: Path) -> None:
        """Make the folders of a spool, and let in who may come.

        Not collective.

        Raises
        ------
        InputError
            It is another user's, others can write into it, or it holds something that is no spool's.
        OSError
            A folder cannot be made.
        """
        path.mkdir(mode=0o700, exist_ok=True)
        place = Path(os.path.realpath(path))
        self._check_whole(place)
        for name in FOLDERS:
            (place / name).mkdir(mode=0o700, exist_ok=True)
            self._check(place / name)
        self._open(place)

    def _check_whole(self, place: Path) -> None:
        self._check(place)

    def _check(self, folder: Path) -> None:
        """Refuse a folder that others could submit to."""
        facts = _own_folder(folder, "; --shared, of a spool of your own, lets others submit")
        if stat.S_IMODE(facts.st_mode) & 0o022:
            raise InputError(
                f"{folder}: others can write into it, and would have jobs run in your name: "
                "chmod go-w, or serve it --shared"
            )

    def _open(self, place: Path) -> None:
        """Let in who may come: nobody."""


class SharedAccess(Access):
    """Others than the user of the service may submit."""

    def _check_whole(self, place: Path) -> None:
        _own_folder(place, "")
        names = os.listdir(place)
        if names and not {*FOLDERS} & {*names}:
            raise InputError(
                f"{place}: holds files, and is no spool: name a folder of its own, which is then shared"
            )

    def _check(self, folder: Path) -> None:
        _own_folder(folder, "")

    def _open(self, place: Path) -> None:
        """Set modes, the way in last."""
        modes = {place / name: self.box if name in BOXES else self.state for name in FOLDERS}
        for folder, mode in (modes | {place: self.spool}).items():
            if self.group is not None:
                os.chown(folder, -1, self.group)
            os.chmod(folder, mode)
            if stat.S_IMODE(os.lstat(folder).st_mode) != mode:
                raise InputError(f"{folder}: this file system keeps no modes, by which users are told apart")


PRIVATE = Access("you alone", 0o700, 0o700, 0o700)
EVERYBODY = SharedAccess("everybody on this machine", 0o755, 0o1733, 0o711)


def members_of(group: str) -> Access:
    """Return the access of the members of a Unix group.

    Not collective.

    Raises
    ------
    InputError
        There is no such group, or the user of the service is none of its members.
    """
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise InputError(f"--group {group}: there is no such group here; `id` tells yours") from None
    if number not in (os.getegid(), *os.getgroups()) and os.geteuid() != 0:
        raise InputError(f"--group {group}: you are none of its members; `id` tells your groups")
    return SharedAccess(f"members of the group {group}", 0o750, 0o1730, 0o710, number)


def _own_folder(folder: Path, advice: str) -> os.stat_result:
    """Return the facts of a folder of one's own; refuse others, and links."""
    facts = os.lstat(folder)
    if not stat.S_ISDIR(facts.st_mode):
        raise InputError(f"{folder}: no folder; a spool has one there")
    if facts.st_uid != os.geteuid():
        raise InputError(f"{folder} is another user's, who could have jobs run in your name{advice}")
    return facts


def find_closed_folders(path: Path, access: Access) -> list[Path]:
    """Return the folders above a spool that do not let those through who may submit. Not collective."""
    through = 0o001 if access.spool & 0o001 else access.spool & 0o011
    return [folder for folder in path.parents if through and not os.stat(folder).st_mode & (through | 0o001)]


def choose_access(shared: bool, group: str | None) -> Access:
    """Return the access that the flags of `serve` ask for.

    Not collective.

    Raises
    ------
    InputError
        They ask for two, or for a group that is none.
    """
    if group is None:
        return EVERYBODY if shared else PRIVATE
    if shared:
        raise InputError("--shared lets everybody in, and --group its members: give one of them")
    return members_of(group)


def read_access(path: Path) -> str:
    """Return in words who may submit to a spool, by the modes of its folders. Not collective."""
    facts = os.stat(path / "queued")
    if facts.st_mode & 0o002:
        return EVERYBODY.who
    if not facts.st_mode & 0o020:
        return PRIVATE.who
    try:
        return f"members of the group {grp.getgrgid(facts.st_gid).gr_name}"
    except KeyError:
        return f"members of the group {facts.st_gid}"
