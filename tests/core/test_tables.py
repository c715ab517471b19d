"""The tables from which the reference is written name what the program uses, and nothing else."""

from __future__ import annotations

import re

from rollbook.core import errors
from rollbook.core.environment import VARIABLES
from tests.program import PACKAGE


def test_every_error_has_an_exit_code_of_the_table() -> None:
    kinds: list[type[errors.AdminError]] = [errors.AdminError, *errors.AdminError.__subclasses__()]
    assert {kind.exit_code for kind in kinds} == set(errors.EXIT_CODES) - {0, errors.INTERRUPTED, errors.PIPE_CLOSED}


def test_every_variable_of_ours_is_in_the_table_and_read_somewhere() -> None:
    read = {
        name
        for path in PACKAGE.rglob("*.py")
        if path.name != "environment.py"
        for name in re.findall(r"\b(?:ROLLBOOK_[A-Z_]*[A-Z]|PG_BINDIR)\b", path.read_text())
    }
    assert {name for name in VARIABLES if name.startswith(("ROLLBOOK_", "PG_"))} == read
