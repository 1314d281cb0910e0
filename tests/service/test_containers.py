"""Images: one Dockerfile and one Apptainer definition on the same scripts, whose steps run in a bare root."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")

# What a machine behind a proxy or a mirror has said of it, and an image would be told as well.
SETTINGS = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")


def test_scripts_are_shell():
    scripts = sorted(DOCKER.glob("*.sh"))
    assert {"environment.sh", "image.sh", "petsc-latest.sh"} <= {script.name for script in scripts}
    for script in scripts:
        done = subprocess.run(["sh", "-n", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


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
    for name in ("setup.cfg", "pyproject.toml", "README.md", "sparsehess", "docker"):
        assert name in files


@pytest.fixture
def bare(tmp_path):
    """A folder with a bare Debian 12; it is a gigabyte or two in the end, and goes with the test."""
    if os.geteuid() != 0:
        pytest.skip("debootstrap and chroot need root")
    if shutil.which("debootstrap") is None:
        pytest.skip("no debootstrap: apt-get install debootstrap")
    root = tmp_path / "root"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", root, MIRROR],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"debootstrap from {MIRROR}: {' '.join((made.stdout + made.stderr).split())[-300:]}")
    for name in SETTINGS:
        if Path("/", name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path("/", name), root / name)
    for given in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        shutil.copy(given, root / "etc/apt/apt.conf.d")
    # Devices of its own, not those of the machine: what removes the folder must not reach them.
    (root / "dev/shm").mkdir(exist_ok=True)
    (root / "dev/shm").chmod(0o1777)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", "--lazy", root / "proc"], check=True)
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.slow
def test_the_steps_of_the_cpu_image(bare):
    project = bare / "opt/sparsehess"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("the files of the project are known by git alone, which does not know this folder")
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, project / name)
    passed = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy") or "PIP_" in key}
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    build = ["chroot", bare, "sh", "/opt/sparsehess/docker/image.sh", "cpu"]
    done = subprocess.run(
        build, env={**passed, "PATH": path, "HOME": "/root"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]

    def inside(*words):
        told = {"PATH": f"/opt/sparsehess/.venv/bin:{path}", "HOME": "/home/sparsehess", "OMP_NUM_THREADS": "1"}
        command = ["chroot", "--userspec=sparsehess", bare, *words]
        return subprocess.run(command, env=told, capture_output=True, text=True, timeout=300, check=False)

    assert inside("id", "-un").stdout.strip() == "sparsehess" and inside("id", "-u").stdout.strip() != "0"
    healthy = inside("sparsehess", "info", "-q")
    assert healthy.returncode == 0, healthy.stderr
    problem = "/opt/sparsehess/drivers/elastic_network.py:protein"
    for launcher in ((), ("mpiexec", "-n", "2")):
        answer = inside(*launcher, "sparsehess", "eigs", problem, "-k", "7", "--json", "-")
        assert answer.returncode == 0, answer.stderr
        assert json.loads(answer.stdout)["converged"] >= 7
