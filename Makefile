# make install | demo | test | test-all | lint: each sets up .venv by itself on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# A test file's tests share what is dear to make, so that a file goes to one process as a whole.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile
export MPLBACKEND := Agg
export HF_HUB_DISABLE_TELEMETRY := 1
# Test files are compiled once, not by every process of every run.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install demo test test-all lint clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fcit needs Python 3.11 or newer; say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,flower]'
	@touch $@

# A finished demo begins anew, an interrupted one continues.
demo: $(STAMP)
	@test ! -e runs/demo/report/index.html || rm -rf runs/demo
	@$(BIN)/fcit demo

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "not gpu"

lint: $(STAMP)
	$(BIN)/ruff format --check src tests tools examples benchmarks
	$(BIN)/ruff check src tests tools examples benchmarks
	$(BIN)/pyright

# What was made by the above; runs/ stays, as it holds results.
clean:
	rm -rf .venv build dist
