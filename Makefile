# The commands of the project. On a fresh Debian machine each installs what it needs: see tools/setup.
.PHONY: serve test test-all lint unit bench deb clean
.DEFAULT_GOAL := serve
BIN := .venv/bin

serve: .venv/serve  ## the example application on http://127.0.0.1:8000
	$(BIN)/appserver --app-dir examples hello:app

test: .venv/test  ## every check; CI runs this and nothing else
	tools/check

test-all: .venv/test  ## the same in all combinations, with the bounds on times that want a quiet machine
	FULL=1 tools/check

lint: .venv/test
	tools/check lint

unit: .venv/test
	tools/check unit

bench:  ## appserver beside its peers, in one run; BENCH="--workloads hello" is passed on
	bench/run $(BENCH)

deb:  ## the Debian package, into build/deb
	packaging/deb

.venv/serve: pyproject.toml tools/setup tools/install-packages
	tools/setup serve

.venv/test: pyproject.toml tools/setup tools/install-packages
	tools/setup test

clean:
	rm -rf .venv build dist .coverage* .mypy_cache .ruff_cache .hypothesis
