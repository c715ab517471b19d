"""Changes that a course server refuses: a conflicting key, a missing column, a constraint."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.program import KEEP, KEEP_SCHEMA, REMOVE
from tests.replication.conftest import (
    Own,
    Site,
    new_ids,
    remedy,
)
from tests.replication.scenes import (
    POISON,
    allow_poison,
    another_user,
    becomes,
    enroll,
    line,
    refuse_poison,
    stands_still,
    stream_early,
    streamed,
)

pytestmark = pytest.mark.slow  # servers of its own; `make check` runs it


def test_a_row_with_the_same_key_is_counted_named_everywhere_and_gone_by_the_printed_command(
    streaming: Site,
) -> None:
    streaming.as_worker(another_user(104))
    streaming.portal.execute(
        "insert into portal.student_courseenrollment (user_id, course_id) values (104, %s)", [KEEP]
    )
    stands_still(streaming)
    found = becomes(streaming, "broken")
    for word in ("insert auth_user row 104", "23505", "auth_user_pkey"):
        assert word in found["reason"]
    assert found["error_count"] >= 1
    shown = streaming.run("replication", "show", KEEP, "--json").data["error"]
    assert (shown["course"], shown["table"], shown["key"], shown["sqlstate"]) == (KEEP, "auth_user", "104", "23505")
    listed = streaming.run("replication", "conflicts", "--json")
    assert listed.code == 4
    (now,) = (row for row in listed.data if row["kind"] != "counted")
    assert (now["course"], now["table"], now["key"], now["sqlstate"]) == (KEEP, "auth_user", "104", "23505")
    assert "auth_user_pkey" in now["message"]
    counted = {row["message"]: row["count"] for row in listed.data if row["kind"] == "counted"}
    assert counted["apply errors"] >= 1
    if streaming.server.info.server_version >= 180000:
        assert counted["insert exists"] >= 1
    assert found["fix"] == now["resolution"]
    assert remedy(streaming, found["fix"]).code == 0
    assert streaming.is_equal(KEEP)
    assert streaming.states() == {KEEP: "ok", REMOVE: "ok"}


def test_a_dropped_column_is_named_with_its_remedy_and_apply_goes_on_once_it_is_back(streaming: Site) -> None:
    streaming.server.execute(f"alter table {KEEP_SCHEMA}.auth_user drop column email cascade")
    streaming.portal.execute("update portal.auth_user set first_name = 'Ada' where username = 'ada'")
    stands_still(streaming)
    found = line(streaming)
    assert (found["course"], found["state"]) == (KEEP, "broken")
    assert "auth_user: email" in found["reason"]
    shown = streaming.run("replication", "show", KEEP, "--json").data
    assert {row["table"]: row["lacking"] for row in shown["tables"]}["auth_user"] == ["email"]
    mend = f"alter table {KEEP_SCHEMA}.auth_user add column email character varying(254)"
    then = f"; then: rollbook replication resume '{KEEP}'; then: rollbook replication repair '{KEEP}'"
    assert found["fix"] == shown["fix"] == f"on server east: {mend}{then}"
    assert streaming.run("replication", "resume", KEEP).code == 1  # refused while it is not mended
    streaming.server.execute(mend)
    streaming.ok("replication", "resume", KEEP)
    streaming.wait()
    assert streaming.run("replication", "verify", KEEP).code == 4  # what the column held is gone
    streaming.ok("replication", "repair", KEEP, "--yes")
    streaming.portal.execute("update portal.auth_user set email = 'again@example.org' where username = 'ada'")
    streaming.wait()
    assert streaming.is_equal(KEEP)
    assert streaming.states() == {KEEP: "ok", REMOVE: "ok"}


def skip_the_poisoned(site: Site, write: Callable[[], None]) -> None:
    """Write a transaction that the server refuses and one behind it, skip the first, and repair in the end."""
    refuse_poison(site)
    write()
    site.portal.execute("update portal.auth_user set first_name = 'later' where username = 'ada'")
    stands_still(site)
    found = site.run("replication", "show", KEEP, "--json").data
    error = found["error"]
    assert (error["table"], error["sqlstate"]) == ("auth_user", "23514")
    assert f"--skip {error['lsn']}" in found["fix"]
    for wrong in ("0/1", f"{error['lsn'][:-1]}{'0' if error['lsn'][-1] != '0' else '1'}"):
        refused = site.run("replication", "resume", KEEP, "--skip", wrong)
        assert refused.code == 1
        assert error["lsn"] in refused.err
    assert line(site)["state"] == "broken"
    site.ok("replication", "resume", KEEP, "--skip", error["lsn"])
    site.wait()
    names = {row[2] for row in site.copy(KEEP)}
    assert "later" in names
    assert "poisoned" not in names
    allow_poison(site)
    assert site.run("replication", "verify", KEEP).code == 4
    site.ok("replication", "repair", KEEP, "--yes")
    assert "poisoned" in {row[2] for row in site.copy(KEEP)}
    assert site.is_equal(KEEP)
    assert site.states() == {KEEP: "ok", REMOVE: "ok"}


def test_a_poisoned_plain_transaction_is_skipped_by_its_lsn_and_later_ones_apply(streaming: Site) -> None:
    def write() -> None:
        with streaming.portal.transaction():
            streaming.portal.execute("update portal.auth_user set first_name = 'poisoned' where username = 'bob'")
            streaming.portal.execute("update portal.auth_user set email = %s where username = 'bob'", [POISON])

    skip_the_poisoned(streaming, write)


def test_a_poisoned_streamed_transaction_is_skipped_by_its_lsn_and_later_ones_apply(site: Site) -> None:
    stream_early(site)
    site.add()
    site.attach(KEEP, REMOVE)
    new_ids(site)

    def write() -> None:
        with site.portal.transaction():
            with streamed(site):
                enroll(site, 300)
            site.portal.execute(
                "update portal.auth_user set first_name = 'poisoned', email = %s where id = 102", [POISON]
            )

    skip_the_poisoned(site, write)


@pytest.mark.slow
def test_a_poisoned_prepared_transaction_is_skipped_by_its_lsn_and_later_ones_apply(
    own: Callable[..., Own],
) -> None:
    site = own()
    site.add()
    site.attach(KEEP, REMOVE)

    def write() -> None:
        site.portal.execute("begin")
        site.portal.execute("update portal.auth_user set first_name = 'poisoned' where username = 'bob'")
        site.portal.execute("update portal.auth_user set email = %s where username = 'bob'", [POISON])
        site.portal.execute("prepare transaction 'poisoned'")
        site.wait()
        assert "poisoned" not in {row[2] for row in site.copy(KEEP)}
        site.portal.execute("commit prepared 'poisoned'")

    skip_the_poisoned(site, write)
