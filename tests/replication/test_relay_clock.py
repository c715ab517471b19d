"""The clocks of a relay and of the server behind it are hours off: no lag and no alarm comes of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.program import KEEP, KEEP_SCHEMA
from tests.replication.doctor import findings
from tests.replication.scenes import enroll, line, stands_still
from tests.replication.test_relay_lost import Machines, machines

__all__ = ["machines"]
HOURS = 3600
# What PostgreSQL asks for the time, answered with a clock that is wrong.
CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

int gettimeofday(struct timeval *found, void *zone) {
    int (*read_clock)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    struct timespec now;
    (void)zone;
    if (read_clock(CLOCK_REALTIME, &now))
        return -1;
    found->tv_sec = now.tv_sec + atol(getenv("CLOCK_AHEAD"));
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *found) {
    struct timeval now;
    gettimeofday(&now, 0);
    if (found)
        *found = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Machines, str, int], None]:
    """Stop a server, and start it with a clock that is so many seconds ahead."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("only a C compiler makes a wrong clock")
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)

    def set_it(site: Machines, name: str, seconds: int) -> None:
        server = site.servers[name]
        server.stop()
        there = Path(shutil.copy(library, server.home))
        there.chmod(0o755)
        with monkeypatch.context() as change:
            change.setenv("LD_PRELOAD", str(there))
            change.setenv("CLOCK_AHEAD", str(seconds))
            server.start()

    return set_it


@pytest.mark.slow
def test_the_clocks_of_a_relay_and_a_server_make_no_lag_and_no_alarm(
    machines: Callable[..., Machines], set_clock: Callable[[Machines, str, int], None]
) -> None:
    site = machines()
    site.build(KEEP)
    set_clock(site, "hub", -5 * HOURS)
    set_clock(site, "east", 5 * HOURS)
    site.again()
    site.wait()
    enroll(site, 2)
    site.wait()
    for hop in site.run("status", "--json").data["servers"]:
        assert hop["state"] == "ok"
        assert hop["hop_seconds"] is None or 0 <= hop["hop_seconds"] <= 5  # None: too little to be measured
        assert 0 <= hop["lag_seconds"] <= 5
    assert {each["state"] for each in site.run("check", "--json").data if each["check"] == "lag east"} == {"ok"}
    lag = site.run("replication", "lag", "--json")
    assert all(0 <= row["lag_seconds"] <= 5 for row in lag.data[-1:])
    assert lag.err.count("lag is corrected by that") == 2
    words = {each["where"]: each["found"] for each in findings(site) if each["check"] == "clock"}
    assert words == {
        "hub": "its clock is 18000.0 s behind the portal's", "east": "its clock is 18000.0 s ahead of the portal's",
    }  # fmt: skip
    site.server.execute(f"alter table {KEEP_SCHEMA}.auth_user add constraint own check (first_name <> 'No')".encode())
    site.portal.execute("update portal.auth_user set first_name = 'No' where id = 101")
    stands_still(site)
    for _ in range(4):  # its slot was left by the relay's clock, and it has heard from it by its own
        row = line(site)
        assert (row["state"], row["reason"].split(" row")[0]) == ("broken", "update auth_user"), row
    site.server.execute(f"alter table {KEEP_SCHEMA}.auth_user drop constraint own".encode())
    site.fixed(KEEP)
