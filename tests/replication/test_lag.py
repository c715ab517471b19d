"""The lag of course servers over time, and live: `replication lag`, and the sparkline of `--watch`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pexpect
import pytest

from rollbook.core.command import Run
from rollbook.replication.commands.lag import draw
from rollbook.replication.heartbeat import Clock
from rollbook.replication.lag import (
    Answer,
    Arrived,
    Beat,
    History,
    Period,
    Sent,
    Unknown,
    behind,
    curve,
    history,
)
from rollbook.replication.link import Server
from tests.program import PROGRAM, environment
from tests.replication.conftest import Site, remedy

START = datetime(2026, 1, 1, tzinfo=UTC)
EAST = Server("east", "", "", "", created_at=START)
SERVER = "select beat, sent_at, arrived_at from rollbook.heartbeat order by beat"


def after(seconds: float) -> datetime:
    """A time of the period."""
    return START + timedelta(seconds=seconds)


def beats(site: Site, *options: str) -> list[dict[str, Any]]:
    """The rows of `replication lag`."""
    return list(site.run("replication", "lag", *options, "--json").data)


def test_each_heartbeat_has_the_time_at_which_it_was_applied(shared: Site) -> None:
    for _ in range(3):
        shared.ok("replication", "canary")
    answer = shared.ok("replication", "lag", "east", "--json")
    rows = answer.data
    assert [list(row) for row in rows] == [["server", "sent_at", "arrived_at", "lag_seconds"]] * len(rows)
    known = [row for row in rows if row["arrived_at"]]
    stored = [row for row in shared.server.execute(SERVER).fetchall() if row[2]]
    times = [(datetime.fromisoformat(row["sent_at"]), datetime.fromisoformat(row["arrived_at"])) for row in known]
    assert times == [row[1:] for row in stored][-len(times) :]
    assert len(times) >= 3
    assert all(0 <= row["lag_seconds"] < 5 for row in known)
    assert all(row["lag_seconds"] is None for row in rows if not row["arrived_at"])
    assert answer.err == ""
    assert [row[0] for row in shared.ok("replication", "lag", "--csv").cells()] == ["server", *["east"] * len(rows)]
    assert beats(shared, "--since", "2100-01-01") == []


def test_what_has_not_arrived_counts_with_its_age_and_is_attention(shared: Site) -> None:
    shared.ok("replication", "canary")
    shared.ok("replication", "pause", "--server", "east")
    (number,) = shared.portal.execute("select beat from rollbook.beat()").fetchone() or (0,)
    assert shared.run("replication", "lag").code == 0  # not for long
    # A minute ago, rather than a minute of waiting; the server gets the same.
    older = "update rollbook.heartbeat set sent_at = sent_at - interval '1 minute' where beat = %s"
    shared.portal.execute(older, [number])
    found = shared.run("replication", "lag", "--since", "30s", "--json")
    under_way = [each for each in found.data if each["arrived_at"] is None and each["lag_seconds"] is not None]
    row = max(under_way, key=lambda each: float(each["lag_seconds"]))
    assert found.code == 4  # though it was sent before that time
    assert 60 <= row["lag_seconds"] < 90
    shared.ok("replication", "resume", "--server", "east")
    shared.wait()
    (arrived,) = (each for each in beats(shared) if each["sent_at"] == row["sent_at"])
    assert 60 <= arrived["lag_seconds"] < 120
    assert arrived["arrived_at"]
    assert shared.run("replication", "lag").code == 0


def test_a_server_of_an_older_version_records_after_the_printed_command(shared: Site) -> None:
    shared.ok("replication", "canary")
    shared.server.execute("alter table rollbook.heartbeat drop column arrived_at")
    shared.server.execute("comment on schema rollbook is 'Rollbook: what a course server needs.'")
    shared.ok("replication", "canary")  # arrives as ever
    answer = shared.ok("replication", "lag", "--json")
    assert answer.data == []
    command = next(line.strip() for line in answer.err.splitlines() if line.strip().startswith("rollbook server add"))
    before = shared.portal.execute("select max(beat) from rollbook.heartbeat").fetchone() or (0,)
    assert remedy(shared, command).code == 0
    shared.ok("replication", "canary")
    rows = shared.server.execute(SERVER).fetchall()
    assert {row[2] is None for row in rows if row[0] <= before[0]} == {True}
    assert {row[2] is None for row in rows if row[0] > before[0]} == {False}
    assert shared.server.execute("select pg_get_userbyid(relowner) from pg_class where oid = "
                                 "'rollbook.heartbeat'::regclass").fetchone() == ("rollbook_owner",)  # fmt: skip
    assert shared.run(*command.split()[1:3], "east", "--admin-dsn", shared.server_dsn, "--subscription-dsn",
                      shared.portal_dsn, "--dry-run").code == 0  # fmt: skip


def test_a_server_that_does_not_answer_is_named_and_the_code_is_3(shared: Site) -> None:
    shared.portal.execute("update rollbook.server set admin_dsn = 'host=/nonexistent dbname=nowhere'")
    try:
        answer = shared.run("replication", "lag", "--json")
        assert (answer.code, answer.data) == (3, [])
        assert json.loads(answer.err)["error"]["message"] == "server east cannot be reached"
    finally:
        shared.portal.execute("update rollbook.server set admin_dsn = %s", [shared.server_dsn])
    assert shared.run("replication", "lag", "west").code == 1
    assert shared.run("replication", "lag", "--since", "soon").code == 2


def screen(site: Site, *arguments: str, size: tuple[int, int] = (24, 80), **env: str) -> tuple[int, list[str]]:
    """Run the program on a terminal; return its exit code and its lines."""
    variables = environment(TERM="xterm-256color", **env)
    child = pexpect.spawn(
        PROGRAM, [*arguments, "-d", site.portal_dsn], dimensions=size, encoding="utf-8", env=variables, timeout=20
    )
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, child.before.replace("\r\n", "\n").split("\n")


@pytest.mark.slow
def test_a_terminal_gets_a_chart(shared: Site) -> None:
    shared.portal.execute("delete from rollbook.heartbeat")  # the lag of the tests before
    shared.ok("replication", "canary")
    for width in (80, 40):
        code, lines = screen(shared, "replication", "lag", "--since", "5m", size=(24, width), LC_ALL="C.UTF-8")
        assert code == 0
        chart = [line for line in lines if re.match(r" *(\d+ s)? .*[▁▂▃▄▅▆▇█]", line)]
        assert chart
        assert max(map(len, chart)) <= width
        assert lines[0].startswith("lag of server east: last 0.0"), lines
    _, plain = screen(shared, "replication", "lag", LC_ALL="C")
    assert "\n".join(plain).isascii()
    assert any(re.fullmatch(r" *0 s .*[_.:=+*#-]", line) for line in plain), plain
    code, live = screen(shared, "replication", "status", "--watch", "0.1", "--count", "3", LC_ALL="C.UTF-8")
    drawn = re.findall(r"lag east (\S+) +now (\S+) s, at most", "\n".join(live).partition("\x1b[?1049l")[2])
    assert [len(line) for line, _ in drawn] == [3]
    assert (code, float(drawn[0][1]) < 1) == (0, True)


def test_the_highest_lag_of_several_servers_is_one_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    beats = {name: [Beat(name, after(1), after(2), lag)] for name, lag in (("east", 0.169), ("west", 0.002))}
    known = {name: History(each, 0.0, records=True) for name, each in beats.items()}
    for names, wanted in (
        (("east", "west"), "highest: 0.169 s"),
        (("west", "west2"), "highest: 0.002 s; scale to 0.1 s"),
    ):
        found = {name: known[name.removesuffix("2")] for name in names}
        out = io.StringIO()
        draw(Run(), out, Period(START, after(10), dict(found), None), found)
        first, second, _ = out.getvalue().splitlines()
        assert first.endswith(wanted), first
        assert ("█" in second) == (names[0] == "east"), second


def test_the_difference_of_the_clocks_is_taken_off() -> None:
    server = replace(EAST, created_at=after(2))
    sent = [Sent(number, after(number)) for number in range(1, 6)]
    theirs = [Arrived(number, after(number), after(number + 100.5)) for number in range(2, 5)]
    theirs[1] = Arrived(3, after(3), None)
    portal = Clock(7.0, 0.01)
    ahead = history(sent, Answer(theirs, True, Clock(107.0, 0.01)), portal, START, after(10), server)
    assert ahead.ahead_seconds == 100
    assert [(row.sent_at, row.lag_seconds) for row in ahead.beats] == [
        (after(2), 0.5), (after(3), None), (after(4), 0.5), (after(5), 5)
    ]  # fmt: skip
    assert (ahead.beats[0].arrived_at, ahead.waiting_seconds) == (after(102.5), 5)
    equal = history(sent, Answer(theirs, True, Clock(7.015, 0.01)), portal, START, after(10), server)
    assert (equal.ahead_seconds, equal.beats[0].lag_seconds) == (0, 100.5)
    back = history(sent, Answer(theirs, True, Clock(207.0, 0.01)), portal, START, after(10), server)
    assert back.beats[0].lag_seconds == 0  # its clock was set since
    other = [Arrived(4, after(40), after(41))]  # another portal's
    assert history(sent, Answer(other, True, portal), portal, START, after(10), server).beats[0].lag_seconds is None


def test_the_time_before_a_stream_was_rebuilt_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    sent = [Sent(number, after(number * 60)) for number in range(1, 10)]
    clock = Clock(7.0, 0.01)

    def found(numbers: Sequence[int], server: Server = EAST, start: float = 0) -> History:
        theirs = [Arrived(number, after(number * 60), after(number * 60 + 0.179)) for number in numbers]
        return history(sent, Answer(theirs, True, clock), clock, after(start), after(600), server)

    rebuilt = found(range(6, 10))
    assert rebuilt.unknown == [Unknown(after(60), after(360), is_before=True)]
    assert [row.lag_seconds for row in rebuilt.beats] == [*[None] * 5, *[0.179] * 4]
    assert found(range(6, 10), start=150).unknown == [Unknown(after(150), after(360), is_before=True)]
    assert found([1, 2, 6, 7]).unknown == [Unknown(after(180), after(360), is_before=False)]
    assert found([1, 2, 6, 7], start=400).unknown == []
    assert found([]).unknown == [Unknown(after(60), after(600), is_before=True)]
    new = found(range(6, 10), replace(EAST, created_at=after(350)))
    assert (new.unknown, len(new.beats)) == ([], 4)
    well = found(range(1, 10))
    for known, first, second in (
        ({"east": rebuilt, "west": well}, "; highest that is known: 0.179 s", "known: at most 0.179 s at "),
        ({"east": found([]), "west": found([])}, "; highest that is known: none; scale to 0.1 s", " not known"),
        ({"east": well, "west": well}, "; highest: 0.179 s", "last 0.179 s, at most 0.179 s at "),
    ):
        out = io.StringIO()
        draw(Run(), out, Period(START, after(600), dict(known), None), known)
        lines = out.getvalue().splitlines()
        assert lines[0].endswith(first), lines
        assert second in lines[1]


def test_no_heartbeat_is_sooner_behind_a_relay_than_at_the_relay() -> None:
    relay, own = (
        History([Beat(name, after(at), None, lag) for at, lag in enumerate(lags)], 0.0, records=True)
        for name, lags in (("hub", (0.012, 0.001, None, 0.2)), ("east", (0.008, 0.003, 0.1, None, 0.3)))
    )
    assert [row.lag_seconds for row in behind(own, relay).beats] == [0.012, 0.003, 0.1, None, 0.3]


def test_a_chart_rises_while_a_heartbeat_is_missing_and_has_gaps() -> None:
    def found(*rows: tuple[float, float | None]) -> list[float | None]:
        return curve([Beat("east", after(at), None, lag) for at, lag in rows], START, after(600), 10)

    assert found((30, 0.1), (90, 150), (150, 95), (270, 0.2)) == [0.1, 30, 90, 150, 150, 0.2, 0.2, None, None, None]
    assert found((590, 1)) == [None] * 9 + [1]
    assert found((-90, 120), (30, None)) == [120, 120, 120, *[None] * 7]
    assert found() == [None] * 10
    rare = found((10, 1), (310, 2))  # every five minutes
    assert rare == [1] * 5 + [2] * 5
