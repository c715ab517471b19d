"""--since and --until: the forms of a time, and every list that has times."""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import Connection

from rollbook.core.errors import UsageError
from rollbook.core.since import period
from rollbook.tree import every_command
from tests.school import Rollbook

NOW = timedelta(seconds=5)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("now", timedelta()), ("-7d", timedelta(days=7)), ("7d", timedelta(days=7)), ("2w ago", timedelta(weeks=2)),
        ("-2h", timedelta(hours=2)), ("90 s", timedelta(seconds=90)), ("3 Days ago", timedelta(days=3)),
        ("30m", timedelta(minutes=30)),
    ],
)  # fmt: skip
def test_an_age_counts_back_from_now(text: str, age: timedelta) -> None:
    found = period(text, None)["since"]
    assert found is not None
    assert abs(datetime.now(UTC) - age - found) < NOW


def test_a_day_begins_at_midnight_utc_and_a_time_keeps_its_zone() -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert period("yesterday", "today") == {"since": midnight - timedelta(days=1), "until": midnight}
    assert period("2012-09-01", "2012-09-01T12:00:00+02:00") == {
        "since": datetime(2012, 9, 1, tzinfo=UTC), "until": datetime(2012, 9, 1, 10, tzinfo=UTC),
    }  # fmt: skip
    assert period("2012-09-01T12:00Z", None)["since"] == datetime(2012, 9, 1, 12, tzinfo=UTC)
    assert period(None, "tomorrow") == {"since": None, "until": midnight + timedelta(days=1)}


@pytest.mark.parametrize(
    "text", ["", "soon", "7", "7y", "2012", "2012-13-01", "-7d-", "999999w", "0001-01-01T00:00+14:00", "9" * 50 + "d"]
)
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        period(text, None)
    assert caught.value.message == f"--since is not a time: {text}"
    assert all(form in str(caught.value.fix) for form in ("-7d", "yesterday", "2012-09-01T12:00"))


def test_an_end_before_the_beginning_is_refused(rollbook: Rollbook) -> None:
    answer = rollbook("user", "list", "--since", "today", "--until", "yesterday", dsn="host=/nonexistent")
    assert (answer.code, answer.err.splitlines()[0]) == (2, "error: --since is after --until")
    assert period("2012-09-01", "2012-09-01")["since"] == datetime(2012, 9, 1, tzinfo=UTC)  # empty, not wrong


def test_every_list_with_a_time_takes_a_period_and_answers_it(rollbook: Rollbook, school: Connection[Any]) -> None:
    del school
    lists = {
        f"{noun} {verb}": command
        for noun, group in every_command().items()
        for verb, command in getattr(group, "commands", {}).items()
        if verb == "list" and any("--limit" in parameter.opts for parameter in command.params)
    }
    without = {name for name, command in lists.items() if not any("--since" in p.opts for p in command.params)}
    assert without == {"group list"}  # groups have no times
    for name, command in lists.items():
        if name in without:
            continue
        (help_text,) = (str(p.help) for p in command.params if "--since" in p.opts)
        column = re.findall("`(.*)`", inspect.cleandoc(help_text))[0]
        everything = rollbook(*name.split(), "--json")
        assert (everything.code, everything.err) == (0, ""), name
        times = sorted(row[column] for row in everything.data if row[column])
        cut = times[len(times) // 2] if times else "2012-09-01T00:00:00Z"
        for option, wanted in (("--since", [t for t in times if t >= cut]), ("--until", [t for t in times if t < cut])):
            part = rollbook(*name.split(), "--json", option, cut)
            assert (part.code, sorted(part.column(column))) == (0, wanted), (name, option, cut)


def test_a_period_narrows_the_total_too(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute(
        "insert into portal.auth_user (username, date_joined) "
        "select 'u' || n, '2001-01-01 12:00+00'::timestamptz + n * interval '1 hour' from generate_series(0, 23) as n"
    )
    listed = rollbook("user", "list", "--format", "table", "--limit", "5", "--since", "2001-01-01", "--until",
                      "2001-01-02T00:00Z")  # fmt: skip
    assert listed.err == "5 of 12 rows; --all shows all\n"


def test_counts_have_a_row_for_each_day_week_and_month(rollbook: Rollbook, school: Connection[Any]) -> None:
    school.execute("delete from portal.student_courseenrollment")
    school.execute(
        """insert into portal.student_courseenrollment (user_id, course_id, created)
        select u.id, 'c', t.at::timestamptz
        from (select id, row_number() over (order by id) as n from portal.auth_user) as u
        inner join (
            values (1, '2012-12-30 23:59:59.999999+00'), (2, '2012-12-31 00:00+00'), (3, '2013-01-03 01:00+02')
        ) as t (n, at) on t.n = u.n"""
    )

    def counted(*options: str) -> list[tuple[Any, ...]]:
        answer = rollbook("enrollment", "count", "--json", *options)
        assert answer.code == 0, answer.err
        return [tuple(row.values()) for row in answer.data]

    assert counted("--by", "day") == [
        ("2012-12-30", 1), ("2012-12-31", 1), ("2013-01-01", 0), ("2013-01-02", 1),
    ]  # fmt: skip
    assert counted("--by", "week") == [("2012-W52", 1), ("2013-W01", 2)]  # the last is a Monday
    assert counted("--by", "month") == [("2012-12", 2), ("2013-01", 1)]
    assert counted("--by", "month", "--course", "x") == []
    assert counted("--by", "day", "--since", "2012-12-31", "--until", "2013-01-02") == [
        ("2012-12-31", 1), ("2013-01-01", 0),
    ]  # fmt: skip
    # A period that is asked for is all there, up to now; an end in the future adds nothing.
    assert [count for _, count in counted("--by", "day", "--since", "-7d")] == [0] * 8
    assert counted("--by", "day", "--since", "-7d", "--until", "2999-01-01") == counted("--by", "day", "--since", "-7d")
    assert (counted("--since", "2013-01-01"), counted("--by", "course", "--until", "2012-12-31")) == (
        [(1,)],
        [("c", 1)],
    )
    school.execute("update portal.student_courseenrollment set created = null where created < '2012-12-31'")
    school.execute("update portal.student_courseenrollment set created = 'infinity' where created < '2013-01-01'")
    assert counted("--by", "day") == [("2013-01-02", 1), (None, 2)]  # unknown times
    school.execute("update portal.auth_user set date_joined = '2012-09-01', is_active = id % 2 = 0")
    (row,) = rollbook("user", "count", "--by", "week", "--json").data
    assert (row["key"], row["users"] > row["active"] > 0) == ("2012-W35", True)  # a Saturday
    days = ("--by", "day", "--since", "2012-08-31", "--until", "2012-09-03")
    assert rollbook("user", "count", *days, "--json").data == [
        {"key": "2012-08-31", "users": 0, "active": 0}, {**row, "key": "2012-09-01"},
        {"key": "2012-09-02", "users": 0, "active": 0},
    ]  # fmt: skip
    assert rollbook("user", "count", "--until", "2012-09-01", "--json").data == [{"users": 0, "active": 0}]
