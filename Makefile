# Only Python >= 3.11 and make are assumed. Everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench lint freeze clean

setup: .venv/ready

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Rollbook needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[demo]' --group dev
	@touch $@
