"""Which triggers of a course fire for what arrives on its server."""

from __future__ import annotations

from tests.program import KEEP, KEEP_SCHEMA
from tests.replication.conftest import (
    Site,
)
from tests.replication.scenes import kept_empty


def test_statement_triggers_on_the_server_fire_on_the_first_copy_and_not_on_apply(site: Site) -> None:
    kept_empty(site)
    site.server.execute(
        f"""create table {KEEP_SCHEMA}.fired (name text);
        grant insert on {KEEP_SCHEMA}.fired to rollbook_owner;
        create function {KEEP_SCHEMA}.note() returns trigger language plpgsql as $$
        begin
            insert into {KEEP_SCHEMA}.fired values (tg_name);
            return null;
        end $$"""
    )
    for level in ("statement", "row"):
        for when in ("origin", "replica", "always"):
            name = f"{level}_{when}"
            site.server.execute(
                f"create trigger {name} after insert on {KEEP_SCHEMA}.auth_user "
                f"for each {level} execute function {KEEP_SCHEMA}.note()"
            )
            if when != "origin":
                site.server.execute(f"alter table {KEEP_SCHEMA}.auth_user enable {when} trigger {name}")

    def fired() -> dict[str, int]:
        found = site.server.execute(f"select name, count(*) from {KEEP_SCHEMA}.fired group by 1").fetchall()
        site.server.execute(f"truncate {KEEP_SCHEMA}.fired")
        return dict(found)

    site.attach(KEEP)
    assert fired() == {"statement_replica": 1, "statement_always": 1, "row_replica": 2, "row_always": 2}
    site.portal.execute(
        "insert into portal.student_courseenrollment (user_id, course_id) values (103, %(c)s), (104, %(c)s)",
        {"c": KEEP},
    )
    site.wait()
    assert fired() == {"row_replica": 2, "row_always": 2}
    assert site.is_equal(KEEP)
