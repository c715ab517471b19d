# Only Python >= 3.11 and make are assumed; everything else goes into .venv.
#   make setup   the program and its tools in .venv        make demo    the main job, on a private server
#   make test    the tests (PG_BINDIR=... picks a server)  make check   what CI runs: lint, all tests
#   make bench   speed, as ratios                          make freeze REV=0002   copy sql/ into a revision
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test slow check lint bench freeze

setup: .venv/ready

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Rollbook needs Python 3.11 or newer")'
	@echo "setting up .venv (once, up to a minute)"
	@$(PYTHON) -m venv .venv 2>/dev/null || { rm -rf .venv; echo "python3 -m venv failed; on Debian: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]' --group dev
	@touch $@

demo: setup
	@$(BIN)/rollbook demo up

test: setup
	@$(BIN)/pytest

check: lint test slow

slow: setup
	@$(BIN)/pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint sql migrations/tables --disable-progress-bar
	$(BIN)/python -m tests.tools.check_plpgsql

bench: setup
	$(BIN)/python -m tests.bench.bench
	$(BIN)/python -m tests.bench.bulk
	$(BIN)/python -m tests.bench.pearson

freeze: setup
	@test -n "$(REV)" || { echo "usage: make freeze REV=0002"; exit 2; }
	@mkdir -p migrations/frozen/$(REV)
	@cp -R sql/functions sql/triggers sql/views sql/grants.sql migrations/frozen/$(REV)/
