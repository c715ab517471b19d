# Only Python >= 3.11 and make are assumed; everything else goes into .venv.
#   make setup   the program and its tools in .venv        make demo    the main job, on a private server
#   make test    the tests (PG_BINDIR=... picks a server)  make check   what CI runs: lint, all tests
#   make versions   the tests on PostgreSQL 16 and 17 (TESTS=tests/sql: some of them; make test too)
#   make adopted   tests on a template that is a Django site, adopted in place, with integer ids
#   make bench   speed, as ratios                          make bench-scale   from 50 to 5,000 courses
#   make lock    renew requirements.lock and requirements-docs.lock
#   make reference   docs/reference/ from the program      make man     manual pages in build/man/
#   make docs    the site in build/site/                   make pictures   docs/pictures/status.svg from the demo
#   make freeze REV=0002   copy the files of sql/ that a release ships with this revision
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: setup lock demo test slow check versions adopted lint bench bench-scale freeze reference man docs pictures

setup: .venv/ready

# What is installed is what requirements.lock says, to the hash; the program itself is linked, not copied. Something is
# printed at least every ten seconds, also into a pipe: what a slow step says itself, or else that it is still going on.
.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Rollbook needs Python 3.11 or newer")'
	@set -e; { while sleep 5 >/dev/null 2>&1 && kill -0 $$$$; do echo "    still working"; done; } 2>/dev/null & \
	ticker=$$!; trap 'kill $$ticker' EXIT; \
	echo "1/3 creating .venv"; rm -f .venv/installed; \
	$(PYTHON) -m venv .venv 2>/dev/null || { rm -rf .venv; echo "python3 -m venv failed; on Debian: apt install python3-venv"; exit 1; }; \
	echo "2/3 installing the packages of requirements.lock, about a minute"; \
	{ $(PIP) install --require-hashes --requirement requirements.lock && touch .venv/installed; } \
		| while read -r word name more; do case "$$word $$name" in \
			"Collecting "*) echo "    $${name%%;*}";; "Installing collected") echo "    unpacking";; esac; done; \
	test -f .venv/installed; \
	echo "3/3 installing rollbook itself, editable"; \
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Keeps the versions that requirements.lock has and adds what pyproject.toml asks for; UPGRADE=--upgrade renews all.
lock: setup
	@$(PIP) install --quiet uv
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --extra demo --group dev \
		--index-strategy unsafe-best-match --no-annotate --no-header --quiet $(UPGRADE) --output-file requirements.lock
	@$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --group docs \
		--index-strategy unsafe-best-match --no-annotate --no-header --quiet $(UPGRADE) --output-file requirements-docs.lock

demo: setup
	@$(BIN)/rollbook demo up

test: setup
	@$(BIN)/pytest $(TESTS)

check: lint test slow

versions: setup
	@$(BIN)/python -m tests.tools.fetch_postgres
	@for bindir in "$(CURDIR)"/.postgres/1[67]/bin; do \
	    [ ! -x "$$bindir/initdb" ] || PG_BINDIR="$$bindir" $(BIN)/pytest $(TESTS) || exit 1; done

ADOPTED ?= tests/sql/functions tests/testcentre tests/people/test_group.py
adopted: setup
	@TEST_ADOPTED=1 $(BIN)/pytest $(ADOPTED)

slow: setup
	@$(BIN)/pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint sql migrations/tables --disable-progress-bar
	$(BIN)/python -m tests.tools.check_plpgsql
	$(BIN)/python -m tests.tools.check_words

bench: setup
	$(BIN)/python -m tests.bench.startup
	$(BIN)/python -m tests.bench.bench
	$(BIN)/python -m tests.bench.bulk
	$(BIN)/python -m tests.bench.pearson
	$(BIN)/python -m tests.bench.adoption

# Half an hour; BENCH_COURSES=50,500 BENCH_USERS=6000 in the environment: smaller.
bench-scale: setup
	$(BIN)/python -m tests.bench.scale

freeze: setup
	@test -n "$(REV)" || { echo "usage: make freeze REV=0002"; exit 2; }
	@$(BIN)/python -m tests.tools.freeze $(REV)

reference: setup
	@$(BIN)/python -m tests.tools.reference

man: setup
	@$(BIN)/python -m tests.tools.reference --man build/man

# The site has packages of its own: 140 MB of icons and themes that no test and no program needs.
.venv-docs/ready: requirements-docs.lock
	@$(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --requirement $<
	@touch $@

docs: setup .venv-docs/ready
	@$(BIN)/python -m tests.tools.site
	@.venv-docs/bin/zensical build --strict --clean --config-file build/zensical.toml
	@echo "look at it: python3 -m http.server --directory build/site --bind 127.0.0.1"

pictures: setup
	@$(BIN)/python -m tests.tools.pictures
