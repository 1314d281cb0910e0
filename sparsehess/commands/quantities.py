"""Times and sizes as flags and job files write them."""

from __future__ import annotations

import re

from sparsehess.errors import InputError

_UNITS = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}

# Days, hours, minutes, seconds, as Slurm and PBS write a time.
_FORMS = (
    r"(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+)",
    r"(?P<d>\d+)-(?P<h>[01]?\d|2[0-3])(?::(?P<m>\d+)(?::(?P<s>\d+))?)?",
)


def parse_time(text: str, flag: str = "--time") -> int:
    """Return a time limit in seconds; errors name the flag.

    Not collective. HH:MM:SS, MM:SS, D-HH with minutes and seconds if need be, or a number with its unit. A number
    alone is refused: Slurm takes it for minutes, PBS for seconds.
    """
    total = 0
    unit = re.fullmatch(r"(\d+)(d|h|min|m|s)", text, re.ASCII)
    if unit:
        total = int(unit[1]) * _UNITS[unit[2]]
    for form in _FORMS:
        match = re.fullmatch(form, text, re.ASCII)
        if match:
            total = sum(int(number or 0) * _UNITS[name] for name, number in match.groupdict().items())
    if not 0 < total < 10**8:
        alone = text.isascii() and text.isdigit()
        said = f"minutes or seconds? write {text}m, or " if alone else "write "
        raise InputError(f"{flag} {text}: {said}HH:MM:SS, D-HH:MM:SS, 90m or 2h")
    return total


def format_time(total: int) -> str:
    """Return seconds as HH:MM:SS. Not collective."""
    return f"{total // 3600:02d}:{total // 60 % 60:02d}:{total % 60:02d}"


def parse_memory(text: str, flag: str = "--memory") -> str:
    """Return a size such as 500M, 4G or 4GiB as a whole number and K, M, G or T, which all schedulers read.

    Not collective.
    """
    match = re.fullmatch(r"([1-9]\d{0,11})([KMGT])(?:i?B)?", text, re.ASCII | re.IGNORECASE)
    if not match:
        told = "a whole number, and no blank" if re.match(r"\d+[. ]", text) else "such as 500M or 4G"
        raise InputError(f"{flag} {text}: write a size with its unit, {told}")
    return match[1] + match[2].upper()


def memory_bytes(text: str) -> int:
    """Return the bytes of what `parse_memory` has returned. Not collective."""
    return int(text[:-1]) * 1024 ** (" KMGT".index(text[-1]))
