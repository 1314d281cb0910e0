# STACK=system (the distribution's petsc4py and slepc4py, default), STACK=latest (newest from PyPI sources), or
# STACK=cuda (the newest, for NVIDIA's devices).
STACK ?= system
VENV := $(CURDIR)/.venv$(if $(filter-out system,$(STACK)),-$(STACK))
READY := $(VENV)/.ready
BIN := $(VENV)/bin
export PATH := $(BIN):$(PATH)
export OMP_NUM_THREADS ?= 1

.PHONY: env demo test slow bench lint clean

env: $(READY)

$(READY): setup.cfg pyproject.toml $(wildcard docker/*.txt docker/*.sh) $(wildcard sparsehess/*.pyx sparsehess/*/*.pyx)
	@sh docker/environment.sh $(STACK) $(VENV)
	@touch $@

demo: env
	@mpiexec -n 2 sparsehess eigs drivers/elastic_network.py:protein -k 12 --plot demo.png --out demo.h5
	@echo "picture: demo.png   results: demo.h5"

test: env
	@tests/run.sh

slow: env  # tests that take minutes each
	@OMPI_MCA_mpi_yield_when_idle=1 python -m pytest -q -m slow tests

bench: env
	@python benchmarks/run.py

lint: env
	@ruff check . && ruff format --check .

clean:
	rm -rf .venv .venv-latest .venv-cuda build *.egg-info demo.png demo.h5
