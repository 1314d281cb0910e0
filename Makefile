# STACK=system (the distribution's petsc4py and slepc4py, default), STACK=latest (newest from PyPI sources), or
# STACK=cuda (the newest, for NVIDIA's devices).
STACK ?= system
VENV := .venv$(if $(filter-out system,$(STACK)),-$(STACK))
HOSTS := $(VENV)-hosts
SOURCES := setup.cfg pyproject.toml $(wildcard docker/*.txt docker/*.sh docker/*.bash) $(wildcard sparsehess/*/*.pyx sparsehess/*/*/*.pyx)
export OMP_NUM_THREADS ?= 1
unexport PYTHONPATH PYTHONHOME  # modules that others put there would stand before the environment's own

.NOTPARALLEL:  # two environments at a time would be two apt-get
.PHONY: env demo test test-all slow docs bench lint wheels clean
env demo test bench lint wheels: export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
test-all slow docs: export PATH := $(CURDIR)/$(HOSTS)/bin:$(PATH)

env: $(VENV)/.ready

$(VENV)/.ready: $(SOURCES)
	@sh docker/environment.sh $(STACK) $(VENV)
	@touch $@

$(HOSTS)/.ready: $(SOURCES)  # JAX, PyTorch, ASE, CasADi, dolfinx, complex scalars
	@sh docker/environment.sh $(STACK) $(HOSTS) hosts
	@touch $@

demo: env
	@mpiexec -n 2 sparsehess eigs drivers/elastic_network.py:protein -k 12 --plot demo.png --out demo.h5
	@echo "picture: demo.png   results: demo.h5"

test: env
	@tests/run.sh

test-all: $(HOSTS)/.ready  # with all hosts, on 1 to 4 ranks: half an hour
	@tests/run.sh all

slow: $(HOSTS)/.ready  # tests that take minutes each; Slurm and bare roots of Debian 12 and 13 among them
	@sh docker/environment.sh $(STACK) $(HOSTS) hosts slow
	@OMPI_MCA_mpi_yield_when_idle=1 PRTE_MCA_hwloc_default_binding_policy=none python -m pytest -q -rs -m slow tests

docs: $(HOSTS)/.ready  # pages of docs/, drivers run for their pictures, in build/docs/html
	@python -m sphinx -q -E -W --keep-going -d build/docs/doctrees docs build/docs/html
	@echo "pages: build/docs/html/index.html"

bench: env
	@python benchmarks/run.py

lint: env
	@ruff check . && ruff format --check . && mypy

wheels: env  # source archive and wheel, for any PETSc, in dist/
	@sh docker/wheels.sh dist

clean:
	rm -rf .venv .venv-hosts .venv-latest* .venv-cuda* build dist *.egg-info demo.png demo.h5 docs/gallery docs/reference/api/generated
