"""Four clients that update users in three courses as fast as they can: throughput, and CPU of the server an update.

The yardstick is what a client would write by hand: prepared statements on the portal and each copy, in a transaction.
Both sides are pgbench, whose own CPU is small: what is compared is the server's work, in turn, medians.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import Connection

if TYPE_CHECKING:
    from tests.bench.bench import Bench

CLIENTS, SECONDS, COURSES, USERS = 4, 5, 50, 20_000
LIMIT = 1.15  # times the yardstick: 0.87 of its throughput
UPDATE = "update {}.auth_user set last_name = 'new' || :value::text where id = :user;\n"


def scripts(folder: Path, plain: Connection[Any]) -> tuple[list[Path], list[Path]]:
    """Write pgbench's scripts: ours, and by hand one for each set of courses, as a statement cannot name its table."""
    ours = folder / "ours.sql"
    number = "\\set value random(1, 1000000000)\n"
    ours.write_text(f"\\set user random(1, {USERS})\n" + number + UPDATE.format("portal"))
    hand = []
    for rest, schemas in plain.execute(
        "select user_id, schemas from rollbook.route where user_id <= %s order by 1", [COURSES]
    ):
        script = folder / f"hand{rest}.sql"
        users = f"\\set user {rest} + {COURSES} * random(0, {USERS // COURSES - 1})\n"
        updates = "".join(UPDATE.format(schema) for schema in ("portal", *schemas))
        script.write_text(f"{users}{number}begin;\n{updates}commit;\n")
        hand.append(script)
    return [ours], hand


def cpu_of_ended_backends(bench: Bench) -> float:
    """Return the CPU seconds of all backends that have ended since the server started."""
    pid = (bench.server.data / "postmaster.pid").read_text().split()[0]
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / 100


def run(bench: Bench, dbname: str, files: Sequence[Path]) -> tuple[float, float]:
    """Let pgbench update for SECONDS; return seconds and server CPU seconds an update."""
    before = cpu_of_ended_backends(bench)
    done = subprocess.run(
        [str(bench.server.bindir / "pgbench"), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2",
         "-T", str(SECONDS), *(word for file in files for word in ("-f", str(file))), bench.server.dsn(dbname)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    count = re.search(r"actually processed: (\d+)", done.stdout)
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    assert count, done.stdout
    assert rate, done.stdout
    time.sleep(0.5)  # the last backends end
    return 1 / float(rate[1]), (cpu_of_ended_backends(bench) - before) / int(count[1])


def saturation(bench: Bench) -> None:
    """Four clients, users in three of 50 courses."""
    with (
        bench.databases(COURSES, enrolled=True) as (routed, plain),
        tempfile.TemporaryDirectory(prefix="rb-saturation-") as folder,
    ):
        ours, hand = scripts(Path(folder), plain)
        times: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
        for turn in range(bench.pairs + 1):
            for side in (0, 1) if turn % 2 else (1, 0):
                (routed, plain)[side].execute("vacuum")
                taken = run(bench, ("routed", "plain")[side], (ours, hand)[side])
                if turn:
                    times[side].append(taken)
        for number, name in enumerate((f"{CLIENTS} clients, user update, 3 courses", "the same, CPU of the server")):
            mine, theirs = (statistics.median(taken[number] for taken in side) for side in times)
            bench.note(name, mine, theirs, LIMIT)


MEASURES: dict[str, Callable[[Bench], None]] = {"saturation": saturation}
