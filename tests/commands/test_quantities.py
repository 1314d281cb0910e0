"""Times and sizes as people write them for schedulers."""

import pytest

from sparsehess.commands.quantities import format_time, memory_bytes, parse_memory, parse_time
from sparsehess.errors import InputError

TIMES = {
    "01:30:00": 5400,
    "1:30:00": 5400,
    "2-00:00:01": 172801,
    "05:30": 330,
    "1-00": 86400,
    "1-12": 129600,
    "1-12:30": 131400,
    "00:90:00": 5400,
    "90m": 5400,
    "90min": 5400,
    "2h": 7200,
    "1d": 86400,
    "45s": 45,
}


@pytest.mark.parametrize("text, total", TIMES.items())
def test_times(text, total):
    assert parse_time(text) == total
    assert parse_time(format_time(total)) == total


NO_TIMES = [
    "",
    "1:2:3:4",
    "00:00:00",
    "-01:00:00",
    "1-30:00",
    "99999999:00:00",
    "1.5h",
    "٣m",
    "5 m",
    "0-00",
    "inf",
]


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time(text):
    with pytest.raises(InputError, match=r"^--limit .*: write HH:MM:SS"):
        parse_time(text, "--limit")


def test_a_number_alone_is_minutes_to_one_scheduler_and_seconds_to_another():
    with pytest.raises(InputError, match=r"--time 90: minutes or seconds[?] write 90m, or HH:MM:SS"):
        parse_time("90")


SIZES = {"4G": ("4G", 2**32), "4g": ("4G", 2**32), "500MiB": ("500M", 500 * 2**20), "2TB": ("2T", 2**41)}


@pytest.mark.parametrize("text, read", SIZES.items())
def test_sizes_are_written_as_schedulers_read_them(text, read):
    assert (parse_memory(text), memory_bytes(parse_memory(text))) == read
    assert memory_bytes(parse_memory("1048576k")) == 2**30


@pytest.mark.parametrize(
    "text", ["4", "4000", "0G", "lots", "4.5G", "-4G", "G", "4Gi", "4GG", "٤G", "4 G", "4G\n", ""]
)
def test_sizes_that_schedulers_would_refuse_or_take_for_bytes(text):
    with pytest.raises(InputError, match="with its unit"):
        parse_memory(text)
