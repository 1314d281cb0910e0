"""Pages that are shown to others: made by commands, read again from files, opened in a real browser."""

import json
import re

import numpy as np
import pytest
import scipy.sparse as sp

from sparsehess.commands.reports.page import page_of
from sparsehess.commands.reports.records import Record
from support import answers
from support.browser import opened, printed, screenshot
from support.cases import grid
from support.command_line import facts, free_truss, run, several

BENZENE = '''
import numpy as np
import sparsehess as sh

def ring(comm, name="ring of six", mass=True):
    """Six atoms with hydrogens, held by springs."""
    turn = np.arange(6) * np.pi / 3
    unit = np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1)
    at = np.concatenate([1.39 * unit, 2.48 * unit])
    pairs = np.array([[i, j] for i in range(12) for j in range(i) if np.linalg.norm(at[i] - at[j]) < 2.6])
    rest = np.linalg.norm(at[pairs[:, 0]] - at[pairs[:, 1]], axis=1)
    def gradient(x):
        p = x.reshape(-1, 3)
        bond = p[pairs[:, 0]] - p[pairs[:, 1]]
        force = 30 * (1 - rest / np.linalg.norm(bond, axis=1))[:, None] * bond
        total = 0.1 * (p - at)
        np.add.at(total, pairs[:, 0], force)
        np.add.at(total, pairs[:, 1], -force)
        return total.ravel()
    return sh.Objective(
        x=at.ravel(), gradient=gradient, pattern=sh.Pattern.from_edges(pairs, 12, dofs=3, comm=comm),
        mass=np.repeat([12.011] * 6 + [1.008] * 6, 3) if mass else None,
        units=sh.Units.of("eV", "angstrom", "amu") if mass else None,
        geometry=sh.Geometry(at, species=["C"] * 6 + ["H"] * 6), name=name, comm=comm,
    )
'''
NAME = "<script>document.title='owned'</script> & \"ring\""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "benzene.py").write_text(BENZENE)
    sp.save_npz(folder / "plate.npz", grid(20, 20) * -1.0 + 8 * sp.identity(400))
    matrix, nodes = free_truss(5)
    sp.save_npz(folder / "truss.npz", matrix)
    np.save(folder / "nodes.npy", nodes)
    commands = [
        "eigs benzene.py:ring -k 8 --report ring.html -o ring.h5",
        "eigs benzene.py:ring -k 8 -o ring.npz",
        "eigs truss.npz --nullspace rigid --coordinates nodes.npy -k 4 --report truss.html",
        "eigs plate.npz --interval 3 4 --report interval.html",
        "eigs plate.npz -k 3 --count no --report uncounted.html",
        "density plate.npz --method lanczos --report density.html -o density.npz",
        "color plate.npz --report color.html -o color.npz",
        "assemble benzene.py:ring -o h.npz --report assemble.html",
    ]
    told = several(folder, commands, 1)
    assert told[0]["run"]["name"] == "ring of six" and told[0]["null_names"] == []
    return folder


PAGES = ("ring", "truss", "interval", "uncounted", "density", "color", "assemble")


def test_pages_need_nothing_else_and_say_what_was_asked(place):
    for name in PAGES:
        text = (place / f"{name}.html").read_text()
        assert not re.search(r"https?://(?!www\.w3\.org)|src\s*=|@import|url\(", text), name
        assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
        assert f"--report {name}.html" in text and "How to reproduce" in text and "Seconds of the stages" in text
        assert "seed 0" in text and "petsc4py" in text
        # Every picture has words, every column a head.
        assert not re.search(r"<(svg|canvas)(?![^>]*(aria-label|aria-hidden))", text), name
        for table in re.findall(r"<table>.*?</table>", text, re.S):
            assert "<caption>" in table and '<th scope="col"' in table and "<thead>" in table


@pytest.mark.parametrize("name", PAGES)
def test_pages_open_in_a_browser(place, tmp_path, name):
    moves = name in ("ring", "truss")
    for milliseconds in (2000, 8000, 32000):  # a busy machine draws few frames
        dom, console = opened(place / f"{name}.html", tmp_path, milliseconds)
        assert 'data-report="ready"' in dom and not console, console
        assert ("<canvas" in dom) == moves
        frames = int(re.search(r'data-frames="(\d+)"', dom)[1]) if moves else 2
        if frames > 1:
            break
    assert frames > 1  # the first is drawn before anything moves
    seen = screenshot(place / f"{name}.html", tmp_path)
    assert seen.shape[1] == 1000 and seen.std() > 0.05


def test_the_structure_is_drawn(place, tmp_path):
    """The red of the largest motion is seen on the canvas, and nowhere without it."""
    seen = screenshot(place / "ring.html", tmp_path, 2600)
    red = (seen[..., 0] > 0.5) & (seen[..., 1] < 0.25) & (seen[..., 2] < 0.3)
    assert red.sum() > 500
    without = screenshot(place / "interval.html", tmp_path, 2600)
    red = (without[..., 0] > 0.5) & (without[..., 1] < 0.25) & (without[..., 2] < 0.3)
    assert red.sum() < 2000 and np.ptp(np.flatnonzero(red.any(axis=1))) < 40  # a dashed line, and its legend


def test_paper(place, tmp_path):
    assert 2 <= printed(place / "ring.html", tmp_path) <= 8
    assert "<svg viewBox" in (place / "ring.html").read_text().partition('class="stills paper"')[2]


@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_a_stored_result_makes_the_same_page(place, suffix):
    told = facts(place, f"report ring.{suffix} -o again.html", 2)
    assert told["of"] == "eigs" and told["lacks"] == [] and told["bytes"] == (place / "again.html").stat().st_size
    again = (place / "again.html").read_text()
    if suffix == "h5":
        assert again == (place / "ring.html").read_text()
    assert "Certified: none missed" in again and 'id="structure"' in again


def test_reports_of_density_and_coloring(place):
    told = facts(place, "report density.npz -o d.html")
    assert told["of"] == "density" and told["lacks"] == []
    assert (place / "d.html").read_text() == (place / "density.html").read_text()
    told = facts(place, "report color.npz -o c.html")
    assert told["of"] == "color" and told["lacks"] == ["picture of the pattern"]


def test_ranks_do_not_change_what_is_drawn(place):
    facts(place, "eigs benzene.py:ring -k 8 --report three.html", 3)
    facts(place, "eigs truss.npz --nullspace rigid --coordinates nodes.npy -k 4 --report trusses.html", 3)
    for one, other in (("ring", "three"), ("truss", "trusses")):
        drawn = [_structure((place / f"{name}.html").read_text()) for name in (one, other)]
        for key in ("positions", "edges", "species", "faces"):
            assert drawn[0][key] == drawn[1][key]
        # Of a single eigenvalue the mode is the same but for its sign.
        assert [label.partition(",")[0] for label in drawn[0]["labels"]] == [
            label.partition(",")[0] for label in drawn[1]["labels"]
        ]


def _structure(text):
    return json.loads(re.search(r'id="structure">(.*?)</script>', text, re.S)[1])


def test_older_results_are_read_and_say_what_they_lack(place):
    with np.load(place / "ring.npz") as file:
        whole = answers.parse(str(file["json"]))
        old = {name: value for name, value in whole.items() if name not in ("run", "answer", "geometry", "zero")}
        np.savez(
            place / "old.npz",
            json=np.array(json.dumps(old)),
            eigenvalues=file["eigenvalues"],
            vectors=file["vectors"],
        )
    told = facts(place, "report old.npz -o old.html")
    assert len(told["lacks"]) == 3
    text = (place / "old.html").read_text()
    assert "What the file does not tell" in text and "Certified: none missed" in text and "<canvas" not in text


def test_names_are_escaped(place, tmp_path):
    command = ["eigs", "benzene.py:ring", "--set", f"name={NAME}"]
    whole = answers.parse(_json_of(place))
    whole["run"] = {"command": command, "name": NAME, "seed": 0, "date": "2026-01-01"}
    whole["inputs"] = {"matrix": {"path": f"{NAME}.mtx", "digest": NAME}, "mass": None}
    whole["options"] = {NAME: NAME}
    whole["null_names"] = [NAME]
    page = tmp_path / "page.html"
    page.write_text(page_of(Record(facts=whole, answer=NAME, lacks=(NAME,))))
    dom, console = opened(page, tmp_path)
    assert "<title>&lt;script&gt;" in dom and not console and dom.count("<script>") == 1


def _json_of(place):
    with np.load(place / "ring.npz") as file:
        return str(file["json"])


def test_what_cannot_be_shown_is_told_in_a_sentence(place):
    np.savez(place / "none.npz", json=np.array("{}"))
    with np.load(place / "ring.npz") as file:
        damaged = {name: file[name] for name in file}
    damaged["node_variables"] = damaged["node_variables"] + 1000
    np.savez(place / "damaged.npz", **damaged)
    damaged["node_variables"] -= 1000
    np.savez(place / "endless.npz", **damaged | {"picture": np.zeros((1001, 1000), np.uint8)})
    del damaged["vectors"]
    np.savez(place / "novectors.npz", **damaged)
    for command, reason in (
        ("report ring.npz -o nowhere/page.html", "there is no folder"),
        ("report ring.npz -o page.pdf", ".html"),
        ("eigs plate.npz -k 2 --report page.txt", ".html"),
        ("report none.npz -o page.html", "no result of sparsehess"),
        ("report damaged.npz -o page.html", "variables that there are not"),
        ("report endless.npz -o page.html", "larger than what is drawn"),
        ("report novectors.npz -o page.html", "no result of sparsehess"),
        ("report plate.npz -o page.html", "no result of sparsehess"),
        ("report missing.h5 -o page.html", "no such file"),
        ("report benzene.py -o page.html", ".h5 or .npz"),
        ("eigs plate.npz --explain --report page.html", "--report"),
    ):
        code, _, err, _ = run(place, command)
        assert code == 2 and reason in err and len(err.strip().splitlines()) == 1, (command, err)
    assert not (place / "page.html").exists()
