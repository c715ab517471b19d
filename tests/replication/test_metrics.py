"""`rollbook metrics` and `rollbook check`: what they report of a stream that runs, lags, is paused, cut, or broken.

Also tests rollbook.slot_status as they read it.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rollbook.system.judging import Judgement, performance
from tests.program import KEEP, KEEP_SCHEMA, PROGRAM, REMOVE, environment
from tests.replication.conftest import Own, Site, started, until

SECRET = "not-for-any-scraper"
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Values:
    """The samples of an exposition: value by name and labels; each only once."""
    found: Values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found: Values, name: str, **labels: str) -> float | None:
    """A sample, None where there is none."""
    return found.get((f"rollbook_{name}", frozenset(labels.items())))


def measured(site: Site, *options: str) -> Values:
    """The samples of `metrics --textfile -`."""
    return parsed(site.run("metrics", "--textfile", "-", *options).out)


def states(found: Values, course: str) -> list[str]:
    """The states in which a course is: one."""
    return [
        dict(labels)["state"]
        for (name, labels), is_so in found.items()
        if name == "rollbook_course_state" and ("course", course) in labels and is_so
    ]


def judged(site: Site, *arguments: str) -> tuple[int, dict[str, tuple[str, Any]]]:
    """The exit code of `check`, and by check its state and value."""
    answer = site.run("check", *arguments, "--json")
    return answer.code, {row["check"]: (row["state"], row["value"]) for row in answer.data}


def nagios(site: Site, *arguments: str) -> tuple[int, str]:
    """The exit code of `check --nagios`, and its line, the only one."""
    answer = site.run("check", *arguments, "--nagios")
    (line,) = answer.out.splitlines()
    assert line.count(" | ") <= 1
    return answer.code, line


def looks(url: str, **headers: str) -> bytes:
    """What an HTTP server answers."""
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        body: bytes = answer.read()
    return body


@contextmanager
def listening(site: Site, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The program as a service on a free port: its URL, and the process."""
    with started(site, "metrics", "--listen", "127.0.0.1:0", *options) as process:
        assert process.stderr is not None
        yield process.stderr.readline().split()[-1], process


def test_metrics_of_a_healthy_stream_and_a_file_of_them_for_node_exporter(shared: Site, tmp_path: Path) -> None:
    shared.ok("replication", "verify")
    found = measured(shared)
    assert value(found, "up") == 1
    parts = ("schema", "routing", "courses", "slots", "verify", "pearson", "discussion")
    assert [value(found, "collect_success", part=part) for part in parts] == [1] * len(parts)
    assert value(found, "collect_success", part="server", server="east") == 1
    assert (states(found, KEEP), states(found, REMOVE)) == (["ok"], ["ok"])
    assert (value(found, "courses", state="ok"), value(found, "courses", state="broken")) == (2, 0)
    assert value(found, "course_info", course=KEEP, kind="server", target="server east") == 1
    lag = value(found, "replication_lag_seconds", course=KEEP)
    assert lag is not None
    assert lag < 5
    assert value(found, "replication_lag_bytes", course=KEEP) is not None
    assert value(found, "replication_pending_changes", course=KEEP) is None  # nobody counts them on a server
    assert value(found, "replication_oldest_pending_timestamp_seconds", course=KEEP) is None
    assert value(found, "slot_lost", slot="rollbook_east") == 0
    assert (value(found, "slot_held_bytes", slot="rollbook_east") or -1) >= 0
    assert value(found, "slot_safe_bytes", slot="rollbook_east") is None  # max_slot_wal_keep_size is -1
    assert value(found, "verify_rows_differing", course=KEEP) == 0
    verified = value(found, "verify_last_success_timestamp_seconds", course=KEEP)
    assert verified is not None
    assert abs(time.time() - verified) < 60
    assert value(found, "schema_pending_revisions", database=shared.portal.info.dbname) == 0
    assert value(found, "pearson_waiting_records", kind="candidate", **{"for": "send"}) == 1
    assert value(found, "pearson_last_export_timestamp_seconds") is None  # never

    file = tmp_path / "rollbook.prom"
    file.write_text("what was there")
    file.chmod(0o600)
    assert shared.ok("metrics", "--textfile", str(file)).out == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["rollbook.prom"]
    assert set(parsed(file.read_text())) >= set(found) - {
        key for key in found if key[0] == "rollbook_replication_lag_seconds"
    }
    gone = replace(shared, portal_dsn=shared.portal_dsn.replace("host=", "host=/nowhere"))
    answer = gone.run("metrics", "--textfile", str(file))
    assert answer.code == 3
    assert parsed(file.read_text()).keys() == {
        ("rollbook_up", frozenset()), ("rollbook_collect_duration_seconds", frozenset())
    }  # fmt: skip
    assert parsed(file.read_text())["rollbook_up", frozenset()] == 0


def test_a_course_that_drifts_is_critical_and_a_paused_server_a_warning(shared: Site) -> None:
    shared.ok("replication", "verify")
    code, found = judged(shared, "replication", "schema", "verify")
    assert {name: state for name, (state, _) in found.items()} == {
        "routing": "ok", "courses ok": "ok", "lag east": "ok", "slot rollbook_east": "warning", "schema": "ok",
        "verify drift": "ok", "verify age": "ok",
    }  # fmt: skip
    assert (code, found["courses ok"][1]) == (4, 2)  # the tests' portal bounds no slot
    assert nagios(shared, "schema", "verify")[0] == 0
    shared.ok("replication", "pause", "--server", "east")
    assert states(measured(shared), KEEP) == ["paused"]
    code, line = nagios(shared, "replication")
    assert (code, line.startswith("ROLLBOOK WARNING - courses paused: ")) == (1, True)
    assert "'courses paused'=2;1;;0" in line
    shared.ok("replication", "resume", "--server", "east")
    shared.wait()
    shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set first_name = 'drift' where id = 101")
    shared.run("replication", "verify")
    found_again = measured(shared)
    assert states(found_again, KEEP) == ["drifted"]
    assert value(found_again, "verify_rows_differing", course=KEEP) == 1
    assert judged(shared, "verify")[1]["verify drift"] == ("critical", 1)
    code, line = nagios(shared, "replication")
    assert (code, line.partition(KEEP)[0]) == (2, "ROLLBOOK CRITICAL - courses drifted: ")
    shared.ok("replication", "repair", "--yes")
    shared.ok("replication", "verify")
    assert judged(shared, "verify", "--max-age", "0s")[1]["verify age"][0] == "warning"


def test_performance_data_is_exact_and_has_no_exponents() -> None:
    slot = Judgement("slot east", "ok", 3_776_816, "B", None, 1_083_713_536, "")
    assert performance(slot) == "'slot east'=3776816B;;1083713536;0"
    lag = Judgement("lag east", "ok", 0.00002, "s", 10.0, 0.5, "")
    assert [performance(each) for each in (lag, replace(lag, value=0.0000001))] == [
        "'lag east'=0.00002s;10;0.5;0", "'lag east'=0s;10;0.5;0",
    ]  # fmt: skip


def test_a_lag_has_limits_and_a_stopped_worker_lags(shared: Site) -> None:
    shared.ok("replication", "canary")
    shared.portal.execute("update rollbook.heartbeat set sent_at = sent_at where false")
    with psycopg.connect(shared.server_dsn) as conn:  # somebody holds up the worker
        conn.execute(f"lock table {KEEP_SCHEMA}.auth_user in access exclusive mode")
        shared.portal.execute("update portal.auth_user set last_name = 'held' where id = 101")
        found = measured(shared)
        assert states(found, KEEP) == ["lagging"]
        oldest = value(found, "replication_oldest_pending_timestamp_seconds", course=KEEP)
        assert oldest is not None
        assert abs(time.time() - oldest) < 60
        code, checks = judged(shared, "replication", "--warning", "0.01", "--critical", "0.1")
        assert (code, checks["lag east"][0], checks["courses lagging"]) == (4, "critical", ("warning", 2))
        conn.rollback()
    shared.wait()
    refused = shared.run("check", "--warning", "5", "--critical", "1")
    assert (refused.code, "below --warning" in refused.err) == (2, True)


def test_a_silent_server_is_absent_and_hides_no_real_fault(shared: Site) -> None:
    (route,) = shared.portal.execute("select admin_dsn from rollbook.server").fetchone() or ("",)
    shared.portal.execute("update rollbook.server set admin_dsn = 'host=/nowhere dbname=x'")
    try:
        began = time.monotonic()
        found = measured(shared, "--timeout", "3")
        assert time.monotonic() - began < 10
        assert value(found, "collect_success", part="server", server="east") == 0
        assert (value(found, "up"), states(found, KEEP)) == (1, ["unreachable"])
        assert value(found, "replication_lag_seconds", course=KEEP) is None
        assert value(found, "replication_errors_total", course=KEEP) is None
        assert judged(shared, "replication")[0] == 3
        code, line = nagios(shared, "replication")
        assert (code, "lag east: not known: its courses are unreachable" in line) == (3, True), line
        assert line.count("connection to server") == 1, line
        shared.portal.execute("alter table portal.auth_user disable trigger rollbook_route_user_update")
        assert value(measured(shared), "routing_faults") == 1
        code, line = nagios(shared, "replication")
        assert code == 2
        assert line.startswith("ROLLBOOK CRITICAL - routing: trigger rollbook_route_user_update")
        assert judged(shared, "replication")[0] == 3
        shared.portal.execute("alter table portal.auth_user enable trigger rollbook_route_user_update")
        # its slot is gone, which the portal knows
        shared.portal.execute(
            "insert into rollbook.server (name, admin_dsn, subscription_dsn, portal_identity) "
            "select 'west', admin_dsn, subscription_dsn, portal_identity from rollbook.server"
        )
        shared.portal.execute("update rollbook.course set server = 'west' where course_id = %s", [KEEP])
        code, line = nagios(shared, "replication")
        assert (code, "slot rollbook_west: is gone; courses of server west" in line) == (2, True), line
        found = measured(shared)
        assert value(found, "slot_lost", slot="rollbook_west") == 1
        assert value(found, "slot_held_bytes", slot="rollbook_west") is None
        (row,) = [row for row in shared.run("replication", "status", "--json").data if row["course"] == KEEP]
        assert (row["state"], "its slot is gone" in row["reason"]) == ("unreachable", True), row
        assert row["fix"].startswith("rollbook server ping west; then: rollbook replication resync ")
        slots = shared.run("replication", "slots", "--json")
        assert (slots.code, [row["slot"] for row in slots.data if row["alarm"] == "gone"]) == (4, ["rollbook_west"])
    finally:
        shared.portal.execute("update rollbook.course set server = 'east' where server = 'west'")
        shared.portal.execute("delete from rollbook.server where name = 'west'")
        shared.portal.execute("alter table portal.auth_user enable trigger rollbook_route_user_update")
        shared.portal.execute("update rollbook.server set admin_dsn = %s", [route])
    down = replace(shared, portal_dsn="host=/nowhere dbname=x user=postgres password=" + SECRET)
    code, line = nagios(down)
    assert (code, line.startswith("ROLLBOOK UNKNOWN - "), SECRET in line) == (3, True, False)
    assert nagios(shared, "nonsense")[0] == 3


def test_a_monitor_measures_everything_but_lag_in_seconds(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (route,) = shared.portal.execute("select admin_dsn from rollbook.server").fetchone() or ("",)
    for side in (shared.portal, shared.server):
        side.execute("drop role if exists rb_scraper; create role rb_scraper login in role rollbook_monitor")
    shared.portal.execute("update rollbook.server set admin_dsn = %s", [str(route).replace(" user=postgres", "")])
    monkeypatch.setenv("PGUSER", "rb_scraper")
    scraper = replace(shared, portal_dsn=shared.portal_dsn.replace("user=postgres", "user=rb_scraper"))
    try:
        found = measured(scraper)
        failed = [key for key, is_so in found.items() if key[0] == "rollbook_collect_success" and not is_so]
        assert (failed, value(found, "up"), states(found, KEEP)) == ([], 1, ["ok"])
        assert value(found, "replication_lag_seconds", course=KEEP) is None
        shared.portal.execute("grant execute on function rollbook.beat() to rb_scraper")  # docs/monitoring.md
        assert value(measured(scraper), "replication_lag_seconds", course=KEEP) is not None
        assert "beat()" not in shared.run("schema", "check", "--json").out
        shared.portal.execute("revoke select on rollbook.discussion_outbox from rollbook_monitor")
        answer = scraper.run("metrics", "--textfile", "-")
        part = parsed(answer.out)
        assert value(part, "collect_success", part="discussion") == 0
        assert (value(part, "discussion_failed_changes"), value(part, "collect_success", part="slots")) == (None, 1)
        assert "discussion is not measured: " in answer.err
        assert judged(scraper, "discussion")[1] == {"discussion": ("unknown", None)}
    finally:
        monkeypatch.delenv("PGUSER")
        shared.portal.execute("grant select on rollbook.discussion_outbox to rollbook_monitor")
        shared.portal.execute("update rollbook.server set admin_dsn = %s", [route])
        for side in (shared.portal, shared.server):
            side.execute("drop owned by rb_scraper; drop role rb_scraper")


@pytest.mark.slow  # a process of its own
def test_it_listens_until_it_is_told_to_end_and_gives_no_secrets(shared: Site) -> None:
    with_secret = replace(shared, portal_dsn=f"{shared.portal_dsn} password={SECRET}")
    with listening(with_secret) as (url, process):
        assert url.startswith("http://127.0.0.1:")
        bodies: list[bytes] = []
        threads = [threading.Thread(target=lambda: bodies.append(looks(url))) for _ in range(3)]  # two Prometheus, say
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [value(parsed(body.decode()), "up") for body in bodies] == [1, 1, 1]
        accepts = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4"
        assert looks(url, Accept=accepts).endswith(b"# EOF\n")
        assert looks(url, **{"Accept-Encoding": "gzip"})[:2] == b"\x1f\x8b"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            looks(url.removesuffix("metrics"))
        with pytest.raises(urllib.error.HTTPError, match="501"):
            urllib.request.urlopen(url, data=b"x", timeout=20)
        end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'rollbook metrics'"
        assert len(shared.portal.execute(end).fetchall()) == 1  # one session, which is kept
        assert value(parsed(looks(url).decode()), "up") == 1  # and is replaced
        port = url.split(":")[2].split("/", maxsplit=1)[0]
        taken = shared.run("metrics", "--listen", f"127.0.0.1:{port}")
        assert (taken.code, f"cannot listen on 127.0.0.1:{port}" in taken.err) == (3, True)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")
        assert SECRET.encode() not in b"".join(bodies)


@pytest.mark.slow  # a portal of its own
def test_a_scrape_ends_in_time_and_the_service_outlives_the_portal(own: Callable[..., Own]) -> None:
    site = own()
    with listening(site, "--timeout", "4") as (url, process):
        assert value(parsed(looks(url).decode()), "up") == 1
        postmaster = int((site.here.data / "postmaster.pid").read_text().split()[0])
        sessions = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for each in (postmaster, *map(int, sessions)):
            os.kill(each, signal.SIGSTOP)
        began = time.monotonic()
        stuck = parsed(looks(url, **{"X-Prometheus-Scrape-Timeout-Seconds": "1.5"}).decode())
        assert time.monotonic() - began < 3
        assert value(stuck, "up") == 0
        for each in (postmaster, *map(int, sessions)):
            os.kill(each, signal.SIGCONT)
        until(lambda: value(parsed(looks(url).decode()), "up") == 1)
        site.here.stop("immediate")
        down = parsed(looks(url).decode())
        assert (value(down, "up"), value(down, "courses", state="ok")) == (0, None)
        site.again()
        assert value(parsed(looks(url).decode()), "up") == 1
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert process.returncode == 130
        assert re.findall(r"^portal is (not measured|measured again)", err, re.MULTILINE)[-2:] == [
            "not measured", "measured again"
        ]  # fmt: skip


def test_what_it_needs_and_what_it_does_not_understand_it_says(
    shared: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for options, words in (
        ((), "either --textfile FILE or --listen HOST:PORT"),
        (("--textfile", "x", "--listen", "127.0.0.1:0"), "either --textfile"),
        (("--listen", "9863"), "is not HOST:PORT"),
        (("--listen", "::1:9863"), "is not HOST:PORT"),
        (("--listen", "127.0.0.1:65536"), "is not HOST:PORT"),
        (("--textfile", str(tmp_path / "no" / "x.prom")), "its directory does not exist"),
    ):
        answer = shared.run("metrics", *options)
        assert (answer.code, words in answer.err) == (2, True), (options, answer)
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    answer = shared.run("metrics", "--textfile", "-")
    assert (answer.code, answer.out) == (3, "")
    assert "prometheus-client is not installed" in answer.err
    assert "pip install prometheus-client" in answer.err
    done = subprocess.run([PROGRAM, "metrics", "--listen", "203.0.113.1:9863", "-d", shared.portal_dsn],
                          capture_output=True, text=True, env=environment(), timeout=30, check=False)  # fmt: skip
    assert (done.returncode, "cannot listen on 203.0.113.1:9863" in done.stderr) == (3, True)
