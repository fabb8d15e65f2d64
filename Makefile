# Everything but `make lock` works on a machine that has only Python (3.11 or newer), pip and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest/bin
# Two processes are what two cores can feed; more would only make tests wait for each other.
JOBS ?= 2
# Modules in the order of `testpaths`, fast ones first: by their number of tests the two longest waits would come last.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder
# The pip of the Python that an environment was made from: where the environment is active, `python3` is its own.
PIP = $$($(1)/python -c 'import sys; print(sys._base_executable)') -m pip --python $(1)/python \
	--disable-pip-version-check install --quiet

# How long `make soak` goes on.
MINUTES ?= 10

.PHONY: demo test check lowest faults soak lint lock clean

demo: $(VENV)/run.stamp
	@$(BIN)/python -m dream demo $(ARGS)

# All but the tests that wait out real time-outs, or kill at every step.
test: $(VENV)/dev.stamp
	@$(PYTEST) -m "not slow" $(ARGS)

# What must hold before anything lands: the linters, the lowest versions of what dream needs, and every test.
check: lint lowest
	@$(PYTEST) $(ARGS)

# The unit tests and the demo with the lowest versions that pyproject.toml allows.
lowest: $(LOWEST)/stamp
	@$(LOWEST)/python -m pytest -q -n $(JOBS) tests/unit
	@$(LOWEST)/python -m dream demo --once

# Every cell of the fault matrix, into docs/reliability.md.
faults: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -n 4 --dist load --faults all --matrix docs/reliability.md tests/acceptance/faults $(ARGS)

# Uploads, deletions, and a random part killed every few seconds; then the promise is checked.
soak: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.soak $(MINUTES)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Only when dependencies change: writes the locked, hashed requirements.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		pyproject.toml --extra stack --group build -o requirements/run.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		pyproject.toml --extra stack --group build --group dev -c requirements/run.txt -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		pyproject.toml --extra stack --group build --group dev --group bench -c requirements/dev.txt -o requirements/bench.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--resolution lowest-direct pyproject.toml --extra stack --extra heif --group build --group dev -o requirements/lowest.txt

clean:
	rm -rf $(VENV) .venv-lowest .dream build

# The environments are made without pip of their own, for Debian's Python has none to give.
$(BIN)/python $(LOWEST)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dream needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv --without-pip $(@D)/..

$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(BIN)/python
	@echo "installing what dream needs into $(VENV) (once)"
	@$(call PIP,$(BIN)) --require-hashes -r requirements/run.txt
	@$(call PIP,$(BIN)) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	@echo "installing what its tests need into $(VENV) (once)"
	@$(call PIP,$(BIN)) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/bench.stamp: requirements/bench.txt $(VENV)/dev.stamp
	@echo "installing what its benchmarks need into $(VENV) (once)"
	@$(call PIP,$(BIN)) --require-hashes -r requirements/bench.txt
	@touch $@

$(LOWEST)/stamp: requirements/lowest.txt pyproject.toml | $(LOWEST)/python
	@echo "installing the lowest versions that dream allows into .venv-lowest (once)"
	@$(call PIP,$(LOWEST)) --require-hashes -r requirements/lowest.txt
	@$(call PIP,$(LOWEST)) --no-deps --no-build-isolation --editable .
	@touch $@
