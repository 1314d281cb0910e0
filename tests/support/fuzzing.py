"""Damaged inputs, one after another, through the command line in one process whose memory is bounded.

    python fuzzing.py FOLDER SEED COUNT KIND [KIND ...]

Prints a line of JSON for each input: kind, number, exit status, lines on standard error, seconds. The input at
work lies in FOLDER: where the process is killed by it, it is there to be looked at.
"""

import contextlib
import gzip
import io
import json
import random
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse as sp

# Bytes beyond those of the libraries that reading a few kilobytes may take, and seconds.
ROOM, PATIENCE = 2**29, 60

ODD_WORDS = [
    b"nan", b"inf", b"-1", b"0", b"1e999", b"99999999999999999999", b"4294967296", b"2147483648", b"", b"\x00",
    b"\xc3\xa9", b"\xff", b"-", b"1" * 300, b"real", b"complex", b"pattern", b"array", b"hermitian", b"general",
]  # fmt: skip
ODD_NUMBERS = [-1, 0, 1, 7, 2**31 - 1, -(2**31), 2**40, 2**62, np.nan, np.inf, -np.inf, 1e308, 5e-324]
ODD_VALUES = [None, True, -1, 0, 1e400, "", "smallest", [], [1, 2, 3], [None, None], {}, 2**70, "x" * 5000]


def matrix():
    chain = sp.diags([np.full(11, -1.0), np.arange(12) + 2.0, np.full(11, -1.0)], [-1, 0, 1])
    return sp.csr_matrix(chain)


def bytewise(data: bytes, drawn: random.Random, words=ODD_WORDS) -> bytes:
    """Return data with a few places overwritten, left out, doubled or filled with odd words."""
    text = bytearray(data)
    for _ in range(drawn.randint(1, 6)):
        if not text:
            break
        at = drawn.randrange(len(text))
        to = min(len(text), at + drawn.randint(1, 20))
        kind = drawn.randrange(6)
        if kind == 0:
            text[at] = drawn.randrange(256)
        elif kind == 1:
            del text[at:to]
        elif kind == 2:
            text[at:at] = text[at:to] * drawn.randint(1, 50)
        elif kind == 3:
            text[at:to] = drawn.choice(words)
        elif kind == 4:
            text[at:to] = bytes([drawn.choice([0, 0x7F, 0x80, 0xFF])]) * (to - at)
        elif drawn.random() < 0.3:
            del text[at:]
    return bytes(text)


def wordwise(data: bytes, drawn: random.Random) -> bytes:
    """Return text with words replaced."""
    words = data.split(b" ")
    for _ in range(drawn.randint(1, 4)):
        words[drawn.randrange(len(words))] = drawn.choice(ODD_WORDS)
    return b" ".join(words)


def odd_array(array: np.ndarray, drawn: random.Random):
    """Return an array with another type, shape or value."""
    kind = drawn.randrange(7)
    if kind == 0 and array.dtype.kind in "iuf":
        return array.astype(drawn.choice(["f4", "f8", "i1", "i8", "u8", "c16", "?", "S8", ">f8", "U3"]))
    if kind == 1:
        return array.ravel()[: drawn.randrange(array.size + 1)]
    if kind == 2:
        return array.reshape(drawn.choice([(1, -1), (-1, 1), (1, 1, -1)]))
    if kind == 3:
        return np.array(drawn.choice(["csr", "dia", "bsr", "xyz", 3, 2.5, b"coo", True]))
    if kind == 4:
        return np.concatenate([array.ravel()] * drawn.randint(2, 5))
    changed = np.array(array).ravel()
    if changed.dtype.kind not in "iuf" or not changed.size:
        return np.array([], changed.dtype)
    number = drawn.choice(ODD_NUMBERS)
    with np.errstate(all="ignore"):
        changed[drawn.randrange(changed.size)] = np.array(number).astype(changed.dtype)
    return changed.reshape(array.shape)


def arrays_of(form: str):
    stream = io.BytesIO()
    sp.save_npz(stream, matrix().asformat(form), compressed=False)
    stream.seek(0)
    with np.load(stream) as archive:
        return {name: archive[name] for name in archive}


def odd_arrays(arrays: dict, drawn: random.Random) -> dict:
    arrays = dict(arrays)
    for _ in range(drawn.randint(1, 2)):
        name = drawn.choice(sorted(arrays))
        kind = drawn.randrange(8)
        if kind == 0 and len(arrays) > 1:
            del arrays[name]
        elif kind == 1:
            arrays["other"] = arrays.pop(name)
        elif kind == 2:
            arrays["vectors"] = np.eye(drawn.randint(1, 30))
        else:
            arrays[name] = odd_array(arrays[name], drawn)
    return arrays


def odd_json(text: str, drawn: random.Random) -> str:
    if drawn.random() < 0.3:
        return (
            bytewise(text.encode(), drawn, [b"{", b"}", b"[" * 2000, b"NaN", b'"', b"1e999"])
            .decode("latin-1")
            .replace("\0", "?")
        )
    facts = json.loads(text)
    for _ in range(drawn.randint(1, 3)):
        name = drawn.choice(["k", "which", "interval", "target", "eigenvalues", "schema", *sorted(facts)])
        if drawn.random() < 0.3:
            facts.pop(name, None)
        else:
            facts[name] = drawn.choice(ODD_VALUES)
    return json.dumps(drawn.choice(ODD_VALUES) if drawn.random() < 0.05 else facts)


def result():
    """Return (facts, arrays) of three eigenpairs, as `eigs -o` stores them."""
    values, vectors = np.linalg.eigh(matrix().toarray())
    facts = {
        "schema": 1, "task": "eigs", "n": 12, "k": 3, "which": "smallest", "interval": None, "target": None,
        "converged": 3, "eigenvalues": values[:3].tolist(),
    }  # fmt: skip
    return json.dumps(facts), {"eigenvalues": values[:3], "vectors": vectors[:, :3].T.copy()}


def damage_job(path, drawn):
    whole = (Path(__file__).parents[2] / "drivers/job.toml").read_bytes()
    whole = whole.replace(b"lennard_jones.py:crystal", b"good.npz").replace(b"set = ", b"# set = ")
    words = [b"[", b"{", b'"', b"=", b"\n", b"9" * 30, b"true", b"[[", b"[" * 3000, b"-", b"nan", b"k = -1\n"]
    path.write_bytes(bytewise(whole, drawn, words))


def damage_mtx(path, drawn):
    stream = io.BytesIO()
    chosen = matrix().toarray() if drawn.random() < 0.2 else matrix()
    scipy.io.mmwrite(stream, chosen, symmetry=drawn.choice(["general", "symmetric"]))
    path.write_bytes(drawn.choice([bytewise, wordwise])(stream.getvalue(), drawn))


def damage_gz(path, drawn):
    stream = io.BytesIO()
    scipy.io.mmwrite(stream, matrix(), symmetry="symmetric")
    packed = gzip.compress(stream.getvalue())
    path.write_bytes(
        bytewise(packed, drawn) if drawn.random() < 0.5 else gzip.compress(wordwise(stream.getvalue(), drawn))
    )


def damage_npz(path, drawn):
    arrays = arrays_of(drawn.choice(["csr", "csc", "coo", "bsr", "dia"]))
    stream = io.BytesIO()
    if drawn.random() < 0.7:
        np.savez(stream, **odd_arrays(arrays, drawn))
        path.write_bytes(stream.getvalue())
    else:
        np.savez(stream, **arrays)
        path.write_bytes(bytewise(stream.getvalue(), drawn))


def damage_petsc(path, drawn):
    given = matrix()
    numbers = np.concatenate([[1211216, 12, 12, given.nnz], np.diff(given.indptr), given.indices])
    for _ in range(drawn.randint(0, 2)):
        odd = drawn.choice([number for number in ODD_NUMBERS if np.isfinite(number) and abs(number) < 2**31])
        numbers[drawn.randrange(len(numbers))] = odd
    data = numbers.astype(">i4").tobytes() + given.data.astype(">f8").tobytes()
    path.write_bytes(bytewise(data, drawn) if drawn.random() < 0.5 else data)


def damage_h5(path, drawn):
    given = matrix()
    arrays = {
        "shape": np.array([12, 12]), "indptr": given.indptr, "indices": given.indices, "data": given.data
    }  # fmt: skip
    _write_h5(path, arrays, None, drawn)


def _write_h5(path, arrays, text, drawn):
    structured = drawn.random() < 0.6
    with h5py.File(path, "w") as file:
        for name, array in (odd_arrays(arrays, drawn) if structured else arrays).items():
            if structured and drawn.random() < 0.1:
                file.create_group(name)
            elif array.dtype.kind == "U":
                file[name] = str(array)
            else:
                file[name] = array
        if text is not None:
            file.attrs["json"] = odd_json(text, drawn) if structured else text
    if not structured:
        path.write_bytes(bytewise(path.read_bytes(), drawn))


def damage_result_npz(path, drawn):
    text, arrays = result()
    stream = io.BytesIO()
    if drawn.random() < 0.5:
        text = odd_json(text, drawn)
    else:
        arrays = odd_arrays(arrays, drawn)
    np.savez(stream, json=np.array(text), **arrays)
    data = stream.getvalue()
    path.write_bytes(bytewise(data, drawn) if drawn.random() < 0.2 else data)


def damage_result_h5(path, drawn):
    text, arrays = result()
    _write_h5(path, arrays, text, drawn)


# name of the file, what damages it, the commands that read it
KINDS = {
    "job": ("job.toml", damage_job, ["eigs {} -q", "plan {} -q"]),
    "mtx": ("bad.mtx", damage_mtx, ["eigs {} -k 2 -q", "color {} -q"]),
    "gz": ("bad.mtx.gz", damage_gz, ["eigs {} -k 2 -q"]),
    "npz": ("bad.npz", damage_npz, ["eigs {} -k 2 -q", "color {} -q", "eigs good.npz -k 2 -q --guess {}"]),
    "petsc": ("bad.petsc", damage_petsc, ["eigs {} -k 2 -q", "color {} -q"]),
    "h5": ("bad.h5", damage_h5, ["eigs {} -k 2 -q", "color {} -q", "eigs good.npz -k 2 -q --nullspace {}"]),
    "result-npz": ("result.npz", damage_result_npz, ["check {} good.npz -q"]),
    "result-h5": ("result.h5", damage_result_h5, ["check {} good.npz -q"]),
}


def answer(words: list[str]) -> tuple[int, str]:
    """Return (exit status, standard error) of a command line."""
    from sparsehess.cli import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(words)
        except SystemExit as end:
            return end.code, said.getvalue()
        except BaseException as error:
            return -1, f"{said.getvalue()}{type(error).__name__}: {error}"
    return -1, "no end"


def too_long(*_):
    raise TimeoutError(f"more than {PATIENCE} s")


def main() -> None:
    folder, seed, count, kinds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    warnings.simplefilter("ignore")
    sp.save_npz(folder / "good.npz", matrix())
    good, _ = answer(["eigs", str(folder / "good.npz"), "-k", "2", "-q"])  # loads what it needs
    assert good == 0
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, too_long)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        drawn = random.Random(f"{seed} {kind} {number}")
        name, damage, commands = KINDS[kind]
        (folder / name).unlink(missing_ok=True)  # HDF5 does not write to a file that a failed read has left open
        damage(folder / name, drawn)
        command = drawn.choice(commands).format(folder / name).replace("good.npz", str(folder / "good.npz"))
        began = time.perf_counter()
        signal.alarm(PATIENCE)
        status, said = answer(command.split())
        signal.alarm(0)
        spent = time.perf_counter() - began
        print(json.dumps([kind, number, status, said.splitlines(), spent]), flush=True)


if __name__ == "__main__":
    main()
