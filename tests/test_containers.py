"""Images on one set of scripts, whose steps run in bare roots of Debian 12 and 13, as the README's commands do."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scipy

from support import ROOT

DOCKER = ROOT / "docker"


def test_scripts_are_shell():
    scripts = sorted(DOCKER.glob("*.sh"))
    assert {"environment.sh", "image.sh", "bare-root.sh", "wheels.sh"} <= {script.name for script in scripts}
    for script in scripts:
        done = subprocess.run(["sh", "-n", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    subprocess.run(["bash", "-n", DOCKER / "mpiexec.bash"], check=True)


@pytest.mark.parametrize("script, words", [("image.sh", []), ("environment.sh", ["nowhere"])])
def test_platforms_that_there_are_not(script, words):
    done = subprocess.run(["sh", DOCKER / script, "tpu", *words], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "not 'tpu'" in done.stderr and done.stderr.count("\n") == 1


def instructions():
    """Return (instruction, rest) of the Dockerfile."""
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def test_one_dockerfile_for_every_platform():
    found = instructions()
    stages = {rest.split()[-1] for name, rest in found if name == "FROM" and " AS " in rest}
    known = re.search(r"^    cpu\) .*\n    (.*)\)", (DOCKER / "image.sh").read_text(), re.MULTILINE).group(1)
    assert stages == {"cpu", *known.split(" | ")} == {"cpu", "latest", "cuda"}
    assert found[0] == ("ARG", "PLATFORM=cpu") and ("FROM", "${PLATFORM}") in found
    last = dict(found)
    assert (
        last["USER"] not in ("root", "0")
        and f"useradd --create-home --shell /bin/sh {last['USER']}" in (DOCKER / "image.sh").read_text()
    )
    assert json.loads(last["ENTRYPOINT"]) == ["sparsehess"]
    assert json.loads(last["HEALTHCHECK"].split("CMD ")[1])[:2] == ["sparsehess", "info"]
    names = [name for name, _ in found]
    assert names.index("RUN") < names.index("USER") < names.index("ENTRYPOINT")


def test_apptainer_takes_the_same_steps():
    text = (DOCKER / "sparsehess.def").read_text()
    step = "/opt/sparsehess/docker/image.sh"
    assert f"sh {step} {{{{ PLATFORM }}}}" in text and f'sh {step} "$PLATFORM"' in dict(instructions())["RUN"]
    files = re.search(r"%files\n((?:    .*\n)+)", text).group(1).split()
    sources = files[::2]
    assert all((ROOT / name).exists() for name in sources)
    assert all(place == f"/opt/sparsehess/{name}" for name, place in zip(sources, files[1::2], strict=True))


def test_all_that_the_package_is_built_from_goes_along():
    """Every file that git knows and pip needs is among those of the Apptainer definition."""
    files = re.search(r"%files\n((?:    .*\n)+)", (DOCKER / "sparsehess.def").read_text()).group(1).split()[::2]
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "sparsehess", "docker"):
        assert name in files


@pytest.fixture(params=["bookworm", "trixie"])
def bare(tmp_path, request):
    """Return what runs a command in a bare Debian, of some gigabytes in the end, which goes with the test."""
    root, script = tmp_path / "root", DOCKER / "bare-root.sh"
    made = subprocess.run(["sh", script, "make", request.param, root], capture_output=True, text=True, check=False)
    if made.returncode == 3:
        pytest.skip(made.stderr)
    assert made.returncode == 0, made.stderr

    def run(folder, *words):
        command = ["sh", script, "run", root, folder, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    run.root, run.suite = root, request.param
    yield run
    shutil.rmtree(root)


def cloned(root, place):
    """Put what git knows of the project, as it is now, in a place of a root."""
    subprocess.run(["git", "clone", "-q", ROOT, root / place], check=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, root / place / name)


@pytest.mark.slow
def test_the_steps_of_the_cpu_image(bare):
    cloned(bare.root, "opt/sparsehess")
    done = bare("/", "sh", "/opt/sparsehess/docker/image.sh", "cpu")
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]

    def inside(*words):
        path = "PATH=/opt/sparsehess/.venv/bin:/usr/bin:/bin"
        return bare(
            *("/", "setpriv", "--reuid=sparsehess", "--regid=sparsehess", "--init-groups"),
            *("env", path, "HOME=/home/sparsehess", "OMP_NUM_THREADS=1", *words),
        )

    assert inside("id", "-un").stdout.strip() == "sparsehess" and inside("id", "-u").stdout.strip() != "0"
    healthy = inside("sparsehess", "info", "-q")
    assert healthy.returncode == 0, healthy.stderr
    blas = json.loads(inside("sparsehess", "info", "--json", "-").stdout)["blas"]
    assert blas["name"] == "OpenBLAS" and blas["name"].lower() in blas["lapack"]
    problem = "/opt/sparsehess/drivers/elastic_network.py:protein"
    for launcher in ((), ("mpiexec", "-n", "2")):
        answer = inside(*launcher, "sparsehess", "eigs", problem, "-k", "7", "--json", "-")
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)["converged"] >= 7


@pytest.mark.slow
@pytest.mark.parametrize("bare", ["trixie"], indirect=True)  # Debian 12 is what every run of all tests has
def test_the_readme_and_all_tests(bare):
    cloned(bare.root, "srv/sparsehess")
    if (ROOT.parent / "shared").is_dir():
        shutil.copytree(ROOT.parent / "shared", bare.root / "srv/shared")
    for command in ("make demo", "make test", "make docs", "SPARSEHESS_CI=1 make test-all"):
        done = bare("/srv/sparsehess", "sh", "-c", command)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_a_root_that_cannot_be_made_is_said(tmp_path):
    """Status 3 and one line, and no folder."""
    environment = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    shell = shutil.which("sh")
    done = subprocess.run(
        [shell, DOCKER / "bare-root.sh", "make", "bookworm", tmp_path / "root"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3 and done.stderr.count("no bare Debian here") == 1
    assert not (tmp_path / "root").exists()


def stubs(folder, **programs):
    """Return a PATH on which programs of our own, in shell, stand before the others."""
    folder.mkdir()
    for name, text in programs.items():
        (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name.replace("_", "-")).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


# What pip is told, and by which variables; of an installation it leaves the project on the path.
PIP = """
import json, os, sys, sysconfig

with open(os.environ["TOLD"], "w") as told:
    json.dump({"words": sys.argv[1:], **os.environ}, told)
with open(os.path.join(sysconfig.get_path("purelib"), "project.pth"), "w") as path:
    path.write(os.environ["PROJECT"])
"""
PYTHON = """
[ "$1 $2" = "-m venv" ] || exec "$PLAIN" "$@"
shift 2
"$PLAIN" -m venv --without-pip "$@"
for site in .venv/lib/python3*/site-packages; do
    mkdir "$site/pip"
    touch "$site/pip/__init__.py"
    cp "$PIP" "$site/pip/__main__.py"
done
"""


def test_nothing_of_the_users_own_gets_in(tmp_path):
    """Not numpy, launcher or settings of pip that stand first elsewhere, nor a space in the path of the clone."""
    if not Path("/usr/lib/petscdir").is_dir():
        pytest.skip("the distribution's petsc4py is not here")
    clone, home = tmp_path / "a clone", tmp_path / "home"
    clone.mkdir()
    shutil.copytree(DOCKER, clone / "docker")
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    plain = Path(sys.executable).resolve()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    others = [home / f".local/lib/{version}/site-packages", tmp_path / "modules"]
    for place in others:
        (place / "numpy").mkdir(parents=True)
        (place / "numpy/__init__.py").write_text("__version__ = '9.9'")
    (tmp_path / "pip.py").write_text(PIP)
    path = stubs(
        tmp_path / "bin",
        dpkg="echo arm64",
        dpkg_query="echo arm64 installed; echo armhf installed",
        mpiexec="echo HYDRA build details:",
        python=PYTHON,
    )
    told = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON", "MAKE", "MFLAGS"))}
    told.update(PATH=path, HOME=str(home), CDPATH=f".:{clone}", PYTHONPATH=str(others[1]))
    told.update(PIP_USER="1", PIP_TARGET="/elsewhere", PIP_CONSTRAINT="/elsewhere/constraints.txt")
    told.update(PYTHON=str(tmp_path / "bin/python"), PLAIN=str(plain), PIP=str(tmp_path / "pip.py"))
    # Of an installation come the project and what pip would have brought for it.
    told.update(TOLD=str(tmp_path / "told"), PROJECT=f"{ROOT}\n{Path(scipy.__file__).parents[1]}")
    done = subprocess.run(["make", "env"], cwd=clone, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pip, venv = json.loads((tmp_path / "told").read_text()), clone / ".venv"
    assert pip["PIP_USER"] == "0" and "PIP_TARGET" not in pip and "PYTHONPATH" not in pip
    assert pip["words"][-2:] == ["-e", f"{clone}[demo,test]"]
    assert pip["words"][-4:-2] == ["-c", str(venv / "constraints.txt")]
    assert (venv / "pip.conf").read_text().split()[-1] == (venv / "constraints.txt").as_uri()
    assert "9.9" not in (venv / "constraints.txt").read_text()
    assert str(tmp_path / "bin") not in (venv / "bin/mpiexec").read_text()
    del told["PYTHONPATH"]
    numpy = [venv / "bin/python", "-c", "import numpy; print(numpy.__file__)"]
    found = subprocess.run(numpy, env=told, capture_output=True, text=True, check=True).stdout
    assert str(home) not in found


def test_apt_asks_nothing_behind_sudo(tmp_path):
    """sudo lets no variable through, and nobody would see the question."""
    path = stubs(
        tmp_path / "bin",
        dpkg="echo arm64",
        dpkg_query='[ "$4" = gfortran ] && echo all installed || echo armhf installed',  # another machine's
        id="echo 1000",
        sudo='[ "$1" = -n ] && exit 0; exec env -i PATH="$PATH" "$@"',
        apt_get=f'echo "$* frontend=${{DEBIAN_FRONTEND:-asks}}" >>"{tmp_path}/log"; [ "$1" = update ]',
    )
    done = subprocess.run(
        ["sh", DOCKER / "environment.sh", "system", tmp_path / "venv"],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    update, install = (tmp_path / "log").read_text().splitlines()
    assert update.startswith("update") and "Lock::Timeout" in install
    assert install.endswith("frontend=noninteractive")
    assert done.returncode == 1 and "apt-get could not install: build-essential libopenblas0" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_what_the_settings_of_pip_name_goes_along(tmp_path):
    """Each file once, by whichever variable; not what is not there."""
    files = {name: tmp_path / name for name in ("pip.conf", "ours.pem", "theirs.pem", "wheels")}
    for file in files.values():
        file.touch()
    files["pip.conf"].write_text(f"[global]\nfind-links = {files['wheels']}\nconstraint = /not/there.txt\n")
    told = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    told |= {"PIP_CONFIG_FILE": str(files["pip.conf"]), "PIP_CERT": str(files["ours.pem"])}
    told |= {"REQUESTS_CA_BUNDLE": str(files["theirs.pem"]), "SSL_CERT_FILE": str(files["ours.pem"])}
    del told["HOME"]
    told["PATH"] = stubs(tmp_path / "bin", unshare='echo "$PLACES"')
    words = ["sh", DOCKER / "bare-root.sh", "run", tmp_path, "/", "true"]
    done = subprocess.run(words, env=told, capture_output=True, text=True, check=True)
    mine = [place for place in done.stdout.split() if place.startswith(f"{tmp_path}/")]
    assert mine == sorted(map(str, files.values()))


def test_a_hook_of_git_keeps_its_index(tmp_path):
    """What runs everything clones the project; git tells its hooks by variables where the index is."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    shutil.copytree(ROOT / ".ci", work / ".ci")
    (work / "docker").mkdir()
    (work / "docker/bare-root.sh").write_text('[ "$1" != make ] || mkdir "$3/root"\n')
    told = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {"HOME": str(home)}

    def git(*words):
        words = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost", *words]
        return subprocess.run(words, cwd=work, env=told, capture_output=True, text=True, check=True).stdout

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "all")
    (work / "next").touch()
    git("add", "next")
    hook = told | {"GIT_DIR": str(work / ".git"), "GIT_INDEX_FILE": str(work / ".git/index")}
    subprocess.run([work / ".ci/run"], cwd=work, env=hook, capture_output=True, check=True)
    assert git("status", "--short") == "A  next\n"
