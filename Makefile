# engramctl: `make sweep` to see it work, `make test` to check it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed

# A Python that has PyTorch for its GPU and the packages of pyproject.toml, instead of an environment made here.
GPU_PYTHON ?=

.PHONY: setup sweep smoke test gpu kernels fuzz kills checks format clean

setup: $(SETUP)  ## A virtual environment with exactly the versions of constraints.txt

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,eval]'
	touch $(SETUP)

sweep: setup  ## Set up, then a first real sweep on this machine's own Python text, and its figure
	$(BIN)/engramctl sweep allocation --budget 8m
	$(BIN)/engramctl plot allocation

smoke: setup  ## Set up, then three tiny trials: does everything work here?
	$(BIN)/engramctl sweep smoke
	$(BIN)/engramctl plot smoke

test: setup  ## Set up, then all tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

GPU_PARTS ?=
gpu: $(if $(GPU_PYTHON),,setup)  ## All of one GPU in six minutes: its numbers as a table and in gpu.json, then the tests that need one
	status=0; python=$(or $(GPU_PYTHON),$(BIN)/python); \
	$$python -m engramctl bench gpu --limit 4m --out gpu.json $(foreach part,$(GPU_PARTS),--only $(part)) || status=1; \
	$$python -m pytest tests/gpu tests/engram/kernels/gpu --durations=5 || status=1; exit $$status

kernels: setup  ## Set up with Triton, then the tests of the GPU kernels in its interpreter, which needs no GPU
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[kernels]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 tests/engram/kernels/gpu

fuzz: setup  ## Set up, then 2,000 command lines and damaged files with new seeds: one line of error or none, nothing written elsewhere
	ENGRAMCTL_FUZZ_CASES=2000 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist load tests/engramctl/fuzz

KILLS ?= 50
SEED ?= 0
kills: setup  ## Kill the smoke sweep at random moments (KILLS=50 SEED=0): is anything lost, wrong or left behind?
	$(BIN)/python -m tests.kills --kills $(KILLS) --seed $(SEED)

checks: setup  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## Put the code in its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environment and caches; results stay
	rm -rf $(VENV) .pytest_cache .hypothesis .mypy_cache .ruff_cache
