# Every target sets itself up: a bare clone needs only Python 3.11, make and git.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: env demo test test-fast test-crash test-audit lint types clean

env: .venv/.ready

# torch first: its pinned build is the one for this machine, and nothing later may replace it.
.venv/.ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "need Python 3.11: install it, or name it with make PYTHON=/path/to/python"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev -e .
	touch .venv/.ready

# A stopped demo goes on where it was; a finished one begins anew.
demo: env
	@if test -f out/demo/summary.json; then rm -rf out/demo; fi
	$(BIN)/braing3n-sim run simulations/recipes/demo.toml --out out/demo

lint: env
	$(BIN)/ruff check .

types: env
	$(BIN)/mypy

# A process for each core, one thread each; whole consortia of processes come after, two at a time, for they mostly wait.
test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --ignore tests/end_to_end
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/end_to_end

test-fast: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not crash"

# kill -9 of every process at every instant of a round: twenty cases in four consortia (five more are in `make test`), two that
# take secure sums, and one whose model has 256 MB; and a round's overhead, measured over processes.
test-crash: env
	$(BIN)/python -m pytest -m crash tests/end_to_end/test_crash.py tests/end_to_end/test_crash_in_a_sum.py \
	  tests/end_to_end/test_secure_sums.py tests/end_to_end/test_consortium.py tests/simulations/bench/test_round_cost.py \
	  tests/attacks/test_a_model_of_256_mb_in_one_round.py

# Ten planted bugs, each in twenty runs, against self-test and audit; prints the table.
test-audit: env
	$(BIN)/python -m tests.privacy.planted_bugs --runs 20

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
