"""What several files of tests do to a site: enroll, refuse an address, wait for a state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from tests.program import KEEP, KEEP_SCHEMA, REMOVE, Result
from tests.replication.conftest import (
    Site,
    remedy,
    until,
)

POISON = "poison@example.org"  # an address that the course on the server refuses, see `refuse_poison`


def line(site: Site, course: str = KEEP, *options: str) -> dict[str, Any]:
    """What `replication status` says of one course."""
    return site.run("replication", "status", course, "--json", *options).row


def refusal(result: Result) -> dict[str, Any]:
    """The error of a command that was asked for JSON: nothing on stdout, one document on stderr's last line."""
    assert result.out == "", result
    return dict(json.loads(result.err.splitlines()[-1])["error"])


def becomes(site: Site, state: str, course: str = KEEP) -> dict[str, Any]:
    """Wait until a course is in this state; return its line."""
    until(lambda: line(site, course)["state"] == state)
    return line(site, course)


def error_count(site: Site, at: str | None = None) -> int:
    """How many errors the workers of a server's stream have met."""
    query = """
        select coalesce(sum(t.apply_error_count + t.sync_error_count), 0)::int
        from pg_subscription as s inner join pg_database as d on d.oid = s.subdbid and d.datname = current_database()
        inner join pg_stat_subscription_stats as t on t.subid = s.oid
    """
    found = site.at(at or site.name).execute(query).fetchone()
    assert found is not None
    return int(found[0])


def stands_still(site: Site, at: str | None = None) -> None:
    """Wait until a worker of a server's stream has met an error, again if it is not the first."""
    before = error_count(site, at)
    until(lambda: error_count(site, at) > before)


def slots(site: Site) -> list[str]:
    """The names of all slots on the portal."""
    return [row[0] for row in site.portal.execute("select slot_name from pg_replication_slots order by 1")]


def another_user(user_id: int) -> str:
    """The statement that makes a user of the course like ada, with another id."""
    return (
        f"insert into {KEEP_SCHEMA}.auth_user select (jsonb_populate_record(u, '{{\"id\": {user_id}}}')).* "
        f"from {KEEP_SCHEMA}.auth_user as u where username = 'ada'"
    )


def enroll(site: Site, count: int, course: str = KEEP) -> None:
    """Enroll new users, in one transaction."""
    with site.portal.transaction():
        site.portal.execute(
            "insert into portal.auth_user (username, email) select 'u' || n, 'u' || n || '@example.org' "
            "from (select max(id) from portal.auth_user) as last (id), generate_series(last.id, last.id + %s - 1) as n",
            [count],
        )  # fmt: skip
        site.portal.execute(
            "insert into portal.student_courseenrollment (user_id, course_id) "
            "select id, %s from portal.auth_user order by id desc limit %s", [course, count],
        )  # fmt: skip


def count_arrivals(site: Site, schema: str = KEEP_SCHEMA) -> None:
    """Let the course on the server note each user that it is brought, by first copy, apply or repair."""
    site.server.execute(
        f"""create table {schema}.arrival (user_id bigint, operation text);
        grant insert on {schema}.arrival to rollbook_owner;
        create function {schema}.note_arrival() returns trigger language plpgsql set search_path = pg_catalog as $$
        begin
            insert into {schema}.arrival values (coalesce(new.id, old.id), tg_op);
            return null;
        end $$;
        create trigger note_arrival after insert or update or delete on {schema}.auth_user
            for each row execute function {schema}.note_arrival();
        alter table {schema}.auth_user enable always trigger note_arrival"""
    )


def refuse_poison(site: Site, schema: str = KEEP_SCHEMA) -> None:
    """Let the course on the server refuse one address."""
    site.server.execute(f"alter table {schema}.auth_user add constraint no_poison check (email <> '{POISON}')")


def allow_poison(site: Site, schema: str = KEEP_SCHEMA) -> None:
    """Let it take that address again."""
    site.server.execute(f"alter table {schema}.auth_user drop constraint no_poison")


def kept_empty(site: Site) -> None:
    """Attach and detach the course, and leave its tables empty on the server: there a course can add to them."""
    site.add()
    site.attach(KEEP)
    site.ok("course", "detach", KEEP, "--keep-data", "--yes")
    site.as_worker(f"truncate {KEEP_SCHEMA}.auth_user, {KEEP_SCHEMA}.auth_userprofile, "
                   f"{KEEP_SCHEMA}.student_courseenrollment")  # fmt: skip


def stream_early(site: Site) -> None:
    """Let the portal send large transactions while they are still open."""
    name = sql.Identifier(site.portal.info.dbname)
    site.portal.execute(sql.SQL("alter database {} set logical_decoding_work_mem = '64kB'").format(name))


@contextmanager
def streamed(site: Site) -> Iterator[None]:
    """Wait until a part of the transaction written inside has been sent; it must still be open."""
    query = "select stream_count from pg_stat_replication_slots where slot_name = 'rollbook_east'"
    with psycopg.connect(site.portal_dsn, autocommit=True) as observer:
        before = observer.execute(query).fetchone() or (0,)
        yield
        until(lambda: (observer.execute(query).fetchone() or (0,)) > before)


def go_on(site: Site) -> None:
    """Wait until the stream goes on, or set it going as the program says."""
    until(lambda: line(site)["state"] in ("ok", "broken"))
    if (found := line(site))["state"] == "broken":
        assert remedy(site, found["fix"]).code == 0
    site.wait()


def later(site: Site, word: str) -> None:
    """Change, add and remove users, as goes on after a backup; each heartbeat of a command stands among it."""
    site.portal.execute("update portal.auth_user set first_name = %s where username = 'ada'", [word])
    enroll(site, 5)
    site.run("replication", "canary")
    site.portal.execute("delete from portal.student_courseenrollment where user_id = 102")
    enroll(site, 5, REMOVE)
    site.run("replication", "canary")
    site.wait()


def comes_back(site: Site) -> None:
    """Bring back both courses, which are not called well before, and see them follow the portal again."""
    enroll(site, 1)  # bears the id of one that the server may still have
    assert "ok" not in site.states().values()
    resynced = site.run("replication", "resync", KEEP, REMOVE, "--yes")
    assert resynced.code == 0, resynced
    assert site.is_equal(KEEP)
    assert site.is_equal(REMOVE)
    enroll(site, 3)
    site.wait()
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}
