"""All that is held on one person, everywhere: what a person may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rollbook.core import history
from rollbook.core.errors import UnreachableError
from rollbook.core.users import find_recorded
from rollbook.people.queries import privacy
from rollbook.replication import catalog, person_places
from rollbook.replication.queries import person_rows

if TYPE_CHECKING:
    from rollbook.core.command import Run
    from rollbook.core.db import Conn
    from rollbook.core.rows import Row
    from rollbook.replication.person_places import Held

NOT_READABLE = "this role may not read it; {role} may"


@dataclass
class Report:
    """A report: in `places` whole rows by place and table; in `open` what was not reached or not readable."""

    user: Row
    at: datetime
    places: list[Row] = field(default_factory=list)
    exchange_files: list[Row] = field(default_factory=list)
    mentions: list[Row] = field(default_factory=list)
    open: list[Row] = field(default_factory=list)
    not_searched: list[Row] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Return how many rows it has."""
        return sum(len(each["rows"]) for each in self.places)

    def add(self, place: str, name: str, rows: list[Row] | None) -> None:
        """Add the rows of a table, or that this role may not read them."""
        if rows is None:
            role = "the role that migrates" if place == "portal" else "the owner of the table"
            self.open.append({"place": place, "object": name, "why": NOT_READABLE.format(role=role)})
        else:
            self.places.append({"place": place, "object": name, "rows": rows})

    def add_held(self, place: str, held: list[Held], unsearched: list[str]) -> None:
        """Add what a side holds in courses."""
        for each in held:
            self.add(place, each.object, each.rows)
        self.not_searched += [{"place": place, "object": name} for name in unsearched]


def report(run: Run, token: str) -> Report:
    """Return what is held on a user, and record that it left. id:N may be a user who is gone. Raises RefusedError."""
    with run.connect() as conn:
        user = find_recorded(conn, [token])[0]
        ids = privacy.accounts(conn, user["id"])
        whose: dict[str, Any] = {"id": user["id"], "username": user["username"] or None, "merged_ids": ids[:-1]}
        found = Report(whose, datetime.now(UTC))
        in_tables(conn, ids, found)
        conn.rollback()
        conn.autocommit = True
        copied = catalog.copied(conn)
        here = person_rows.find(conn, copied, ids)
        found.add_held("portal", person_places.described(conn, copied, here, whole=True), here.unsearched)
        keys = privacy.row_keys(conn, ids)
        for name, answer in person_places.look(conn, ids, keys, run.caller(), whole=True).items():
            if isinstance(answer, UnreachableError):
                why = answer.why or answer.message
                found.open.append({"place": f"server {name}", "object": "all courses", "why": why})
            else:
                found.add_held(f"server {name}", answer.held, answer.unsearched)
        history.record_if_allowed(
            conn, run, user["username"] or f"id:{user['id']}", "exported", after={"rows": found.rows},
            user_id=user["id"],
        )  # fmt: skip
    return found


def in_tables(conn: Conn, ids: list[int], found: Report) -> None:
    """Add what the portal's tables, the history and the exchange files hold."""
    words = privacy.words(conn, ids)
    for holding in privacy.holdings(conn, ids, words.emails):
        found.add("portal", holding.name, privacy.read(conn, holding))
    about, found.mentions = privacy.entries(conn, ids, words)
    if about:
        found.add("portal", "rollbook.history", about)
    found.exchange_files = privacy.files(conn, ids)
