"""Functions of `sql/functions` as queries, for servers that do not have them."""

from __future__ import annotations

import re

from rollbook.core.migrating import SQL

BODY = re.compile(r"\bas \$\$(.*?)\$\$", re.DOTALL)


def as_query(name: str, *parameters: str) -> bytes:
    """Return the body of a function, such as `checks/local_objects`, as a query; the parameters name its $1, $2, ..."""
    body = BODY.search((SQL / "functions" / f"{name}.sql").read_text())
    assert body is not None  # noqa: S101 (a shipped file)
    text = body[1].replace("%", "%%")
    for number, parameter in enumerate(parameters, start=1):
        text = text.replace(f"${number}", f"%({parameter})s")
    return text.encode()
