# Two commands do all the set-up:  make demo   and   make test
# .venv is made here and changed only when pyproject.toml has changed.

PYTHON ?= python3
ARGS ?=
JOBS ?=
# make bounds: the tests that run native code, and the minutes of fuzzing after them.
BOUNDS ?= tests/tracker/kernels tests/tracker/events tests/tracker/users tests/tracker/items \
  tests/tracker/encoder tests/tracker/scoring tests/tracker/recommend tests/tracker/stream \
  tests/tracker/kafka/test_record_batch.py tests/indexer/encoder tests/indexer/evaluate \
  tests/indexer/train
MINUTES ?= 10
BIN := .venv/bin

# Bytecode is kept, even if the environment (that of many images) says otherwise: without it each
# process compiles all modules and rewrites all tests again, 20 seconds of processor time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test quick browser faults fuzz bounds promises check format lint types bench bench-check figures pages docs schemas sbom audit clean

help:
	@echo 'To begin:'
	@echo '  make demo     the demonstration: recommendations before and after a few events'
	@echo '  make test     all tests, with coverage; a part of them: make test ARGS="-k words"'
	@echo 'To work on it:'
	@echo '  make quick    the tests that need neither a broker nor a training'
	@echo '  make lint     format, style, and the contracts between rooms'
	@echo '  make types    mypy, strict'
	@echo '  make check    lint, types and test: what a change has to pass'
	@echo '  make format   let ruff format the sources'
	@echo '  make schemas  write schemas/ and the generated tables of the docs from the code'
	@echo '  make docs     build the documentation site into build/docs'
	@echo '  make browser  the page of a worker in Chromium: flows, widths, languages'
	@echo 'To measure:'
	@echo '  make bench    all benchmarks of speed on Apache Kafka (needs Java and Maven): DATA=folder'
	@echo '  make bench-check  fail if a ratio in benchmarks/results/ is below its bound'
	@echo '  make faults   ten minutes of faults on Apache Kafka, judged by a model of the rules'
	@echo '  make fuzz     an hour of made-up input for everything that is read from outside'
	@echo '  make bounds   tests and fuzzing of native code, with every index checked'
	@echo '  make promises run the tests of each promise once without its protection: they have to fail'
	@echo '  make figures  measure the figures of docs/figures/: DATA=folder, ONLY="films faults" for some'
	@echo '  make pages    write docs/figures/ from benchmarks/results/'
	@echo '  make sbom     the software bill of materials into build/sbom.json (CycloneDX)'
	@echo '  make audit    known weaknesses of what is installed (asks the package index)'
	@echo '  make clean    remove everything that was made here, .venv too'
	@echo 'Variables: PYTHON=python3.12 (the interpreter), JOBS=4 (tests at a time), ARGS="..." (options)'

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ...' >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	touch $@

.venv/.demo: .venv/.made pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[cpu,demo]'
	touch $@

.venv/.test: .venv/.made pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[cpu,otel,demo,train,privacy,xlsx,ray,docs,test]'
	touch .venv/.demo $@

# A cold cache only: later, what has changed is compiled by the test that comes to it first.
.venv/.compiled: .venv/.test
	$(BIN)/python -m tests.compiled
	touch $@

.venv/.bench: .venv/.made pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[cpu,otel,demo,train,privacy,xlsx,ray,docs,test,bench]'
	touch .venv/.demo .venv/.test $@

demo: .venv/.demo
	$(BIN)/tracker demo $(ARGS)

# A third of their time the tests wait for brokers and clocks: three at a time keep two cores busy.
test: .venv/.compiled
	$(BIN)/python -m pytest -n $(or $(JOBS),3) --dist loadgroup --cov --cov-report=term $(ARGS)

# All of tests/end_to_end needs a broker: it is not even imported. Folders of tests are in memory
# where it has room for them (.1 GB): hundreds of small databases wait for a disk else. Tests are
# dealt out by file in the order of collection: doctests come last, so both processes end together.
quick: export PYTEST_DEBUG_TEMPROOT ?= $(shell df -k /dev/shm 2>&- | awk 'NR > 1 && $$4 > 1000000 { print "/dev/shm" }')
quick: .venv/.test
	$(BIN)/python -m pytest -n $(or $(JOBS),2) --dist loadgroup --no-loadscope-reorder \
	  -m "not broker and not training" --ignore tests/end_to_end $(ARGS)

browser: .venv/.test
	$(BIN)/python -m tests.browser $(ARGS)

faults: .venv/.test
	$(BIN)/python -m tests.faults $(or $(ARGS),--actions 1000 --minutes 10)

fuzz: .venv/.test
	$(BIN)/python -m tests.fuzz $(ARGS)

# A cache of its own: code with checks is another code.
bounds: export NUMBA_BOUNDSCHECK := 1
bounds: export NUMBA_CACHE_DIR := $(CURDIR)/build/bounds
bounds: .venv/.test
	$(BIN)/python -m pytest -n $(or $(JOBS),2) -m "not broker and not long" -o timeout=900 $(BOUNDS) $(ARGS)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

promises: .venv/.test
	$(BIN)/python -m tests.promises $(ARGS)

lint: .venv/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo

types: .venv/.test
	$(BIN)/mypy

check: lint types test

format: .venv/.test
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: .venv/.bench
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.all --speed --data $(DATA) $(ONLY)
	$(BIN)/python -m benchmarks.figures

bench-check: .venv/.test
	$(BIN)/python -m benchmarks.check

figures: .venv/.bench
	$(BIN)/python -m benchmarks.all --data $(DATA) $(ONLY)
	$(BIN)/python -m benchmarks.figures

sbom: .venv/.test
	mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json $(BIN)/python

# Known weaknesses of what is installed; --strict: what cannot be looked up is a failure too.
audit: .venv/.test
	mkdir -p build
	$(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable > build/installed.txt
	$(BIN)/uvx --quiet pip-audit --strict --no-deps --disable-pip -r build/installed.txt

pages: .venv/.test
	$(BIN)/python -m benchmarks.figures

docs: .venv/.test
	$(BIN)/python -m docs.generate
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html \
	  --doctree-dir build/doctrees docs build/docs

schemas: .venv/.test
	$(BIN)/python -m indexer.data.schemas schemas
	$(BIN)/python -m docs.generate

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* \
	  htmlcov build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
