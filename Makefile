# Every target except `lock` works on a machine that has only Python (3.11 or newer), pip and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest/bin
# Tests wait for servers half of their time, so three processes feed two cores.
JOBS ?= 3
# Modules run in the order of `testpaths`, fast ones first. Ordered by number of tests, the two longest waits would come last.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder
# The pip of the Python from which an environment was made. In an active environment `python3` is that environment's own.
PIP = $$($(1)/python -c 'import sys; print(sys._base_executable)') -m pip --python $(1)/python \
	--disable-pip-version-check install --quiet

# Tests start hundreds of Pythons: without compiled files each compiles dream anew, and pytest every test.
unexport PYTHONDONTWRITEBYTECODE

# Minutes that `make soak` runs.
MINUTES ?= 10

.PHONY: demo test check lowest newest dist docs screenshots faults soak lint lock clean

demo: $(VENV)/run.stamp
	@$(BIN)/python -m dream demo $(ARGS)

# All tests except those marked `slow`.
test: $(VENV)/dev.stamp
	@$(PYTEST) -m "not slow" $(ARGS)

# All checks before a change lands: the linters, the documentation's site, the demo with the lowest and the newest versions of
# the dependencies, quick tests with the lowest, and then every test. Two at a time before the tests, because each waits for
# downloads and for servers.
check:
	@$(MAKE) --no-print-directory -j2 $(LOWEST)/libraries.stamp lint docs lowest newest
	@$(PYTEST) $(ARGS)

# The quick tests of the units, the contracts and the gateway, and the demo of the installed wheel, with the lowest versions
# that pyproject.toml allows.
lowest: $(LOWEST)/stamp
	@$(LOWEST)/python -m pytest -q -n $(JOBS) -m "not slow" tests/unit tests/contract tests/integration/gateway
	@cd $(LOWEST) && ./python -P -m dream demo --once --port 0

# The demo of the wheel in an empty environment, with the newest versions of the core and the embedded servers.
newest: dist
	@rm -rf .venv-newest && $(PYTHON) -m venv --without-pip .venv-newest
	@$(call PIP,.venv-newest/bin) "$$(echo dist/*.whl)[embedded]"
	@cd .venv-newest && bin/python -P -m dream demo --once --port 0

# The wheel and the source distribution, in dist/.
dist: $(VENV)/dev.stamp
	@rm -rf dist && $(BIN)/python -m build --no-isolation --outdir dist . > /dev/null

# The documentation as a site, in build/site/. It needs no other site: `python3 -m http.server -d build/site` shows it offline.
docs: $(VENV)/dev.stamp
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Take the pictures of the page, for its documentation, and check each with axe.
screenshots: $(VENV)/dev.stamp
	@DREAM_TEST_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q tests/acceptance/test_page_live.py -k barrier $(ARGS)

# Run every cell of the fault matrix, and write the outcomes into docs/reliability.md.
faults: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -n 4 --dist load --faults all --matrix docs/reliability.md tests/acceptance/faults $(ARGS)

# Upload and delete, kill a random process every few seconds, and check the promise at the end.
soak: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.soak $(MINUTES)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# With the extras that the demo and a usual server need.
LOCK = uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	pyproject.toml --extra embedded --extra jwt --extra postgres --extra rabbitmq

# Write the locked, hashed requirements; only needed when dependencies change.
lock:
	$(LOCK) --group build --group dev -o requirements/dev.txt
	$(LOCK) --group build -c requirements/dev.txt -o requirements/run.txt
	$(LOCK) --group build --group dev --group bench -c requirements/dev.txt -o requirements/bench.txt
	$(LOCK) --group build --group dev --extra heif --resolution lowest-direct -o requirements/lowest.txt

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest .dream build dist

# The environments have no pip of their own, because Debian's Python provides none.
$(BIN)/python $(LOWEST)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dream needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv --without-pip $(@D)/..

$(VENV)/run.stamp: requirements/run.txt pyproject.toml | $(BIN)/python
	@echo "installing dream's dependencies into $(VENV) (once)"
	@$(call PIP,$(BIN)) --require-hashes -r requirements/run.txt
	@$(call PIP,$(BIN)) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	@echo "installing the tests' dependencies into $(VENV) (once)"
	@$(call PIP,$(BIN)) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/bench.stamp: requirements/bench.txt $(VENV)/dev.stamp
	@echo "installing the benchmarks' dependencies into $(VENV) (once)"
	@$(call PIP,$(BIN)) --require-hashes -r requirements/bench.txt
	@touch $@

$(LOWEST)/libraries.stamp: requirements/lowest.txt | $(LOWEST)/python
	@echo "installing the lowest versions that dream allows into .venv-lowest (once)"
	@$(call PIP,$(LOWEST)) --require-hashes -r requirements/lowest.txt
	@touch $@

$(LOWEST)/stamp: $(LOWEST)/libraries.stamp pyproject.toml dist
	@$(call PIP,$(LOWEST)) --no-deps --force-reinstall dist/*.whl
	@touch $@
