"""An export of 100,000 candidates against psql's \\copy of the same columns, interleaved, medians; and peak memory.

`python -m tests.bench.pearson`. The program also locks, notes and stamps every record, in the same transaction, and
hashes and flushes the file. To say what part that is, a second yardstick is psql doing the same: \\copy of the columns,
an UPDATE of uploaded_at, and an INSERT of a row of history for each record, in one transaction.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from rollbook.system import migration as schema
from rollbook.system.demo.server import PrivateServer, find_bindir
from tests.bench.bench import PAIRS

ROWS = int(os.environ.get("BENCH_ROWS", "100000"))
LIMIT = 2.0
COLUMNS = (
    "c.client_candidate_id, c.first_name, c.last_name, c.middle_name, c.suffix, c.salutation, u.email, c.address_1, "
    "c.address_2, c.address_3, c.city, c.state, c.postal_code, c.country, c.phone, c.extension, c.phone_country_code, "
    "c.fax, c.fax_country_code, c.company_name, "
    "to_char(c.user_updated_at at time zone 'UTC', 'YYYY/MM/DD HH24:MI:SS') as last_update"
)
TABLES = "portal.student_testcenteruser as c inner join portal.auth_user as u on u.id = c.user_id"
STAMP = "update portal.student_testcenteruser set uploaded_at = clock_timestamp()"
NOTE = (
    "insert into rollbook.exchange_row (file_id, line, key, record_id, outcome) "
    "select 0, row_number() over (order by id), client_candidate_id, id, 'sent' from portal.student_testcenteruser"
)


def fill(db: Connection[Any], rows: int) -> None:
    """Make so many candidates, all of them due."""
    db.execute("truncate portal.auth_user restart identity cascade")
    db.execute("truncate rollbook.exchange_file, rollbook.exchange_row")
    db.execute("set session_replication_role = replica")  # the rules are not what is measured
    db.execute(
        "insert into portal.auth_user (id, username, email) "
        "select n, 'user' || n, 'user' || n || '@example.com' from generate_series(1, %s) as n",
        [rows],
    )
    db.execute(
        """insert into portal.student_testcenteruser (
            user_id, client_candidate_id, first_name, last_name, address_1, city, state, postal_code, country, phone,
            phone_country_code
        )
        select n, 'edX' || lpad(n::text, 12, '0'), 'First' || n, 'Last' || n, n || ' Main Street', 'Boston', 'MA',
            '02139', 'USA', '617-555-' || n %% 1000, '1'
        from generate_series(1, %s) as n""",
        [rows],
    )
    db.execute("reset session_replication_role")
    db.execute("vacuum (analyze) portal.student_testcenteruser")


def run(*command: str) -> tuple[float, float]:
    """Run a process; return its seconds and its peak memory in MB."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0, command
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def main() -> None:
    """Measure on a private server that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="rb-bench-") as where:
        folder = Path(where)
        folder.chmod(0o755)
        settings = {"shared_buffers": "512MB", "max_wal_size": "4GB", "autovacuum": "off"}
        server = PrivateServer(folder / "pg", settings=settings)
        server.start()
        try:
            with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
                conn.execute("create database bench_pearson")
            dsn = server.dsn("bench_pearson")
            schema.upgrade(dsn)
            with psycopg.connect(dsn, autocommit=True) as db:
                measure(db, dsn, folder)
        finally:
            server.remove()


def measure(db: Connection[Any], dsn: str, folder: Path) -> None:
    """Time the sides in turn; print medians, ratios and memory."""
    form = "csv header delimiter e'\\t' encoding 'latin1'"
    copy = f"\\copy (select {COLUMNS} from {TABLES} order by c.id) to '{folder}/copy' {form}"

    def psql(*commands: str) -> tuple[float, float]:
        options = [word for command in commands for word in ("-c", command)]
        return run(str(Path(find_bindir()) / "psql"), "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", dsn, *options)

    def export() -> tuple[float, float]:
        return run(sys.executable, "-c", "from rollbook.cli import main; main()", "pearson", "export", "cdd", "-q",
                   "-o", str(folder / "out"), "-d", dsn)  # fmt: skip

    peaks = {}
    for rows in (ROWS // 10, ROWS):
        fill(db, rows)
        peaks[rows] = export()[1]
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "pearson export": export,
        "\\copy": lambda: psql(copy),
        "\\copy, stamp and note": lambda: psql(copy, STAMP, NOTE),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(PAIRS):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            fill(db, ROWS)
            db.execute("checkpoint")
            times[name].append(sides[name]()[0])
    mine, copied, stamped = (statistics.median(found) for found in times.values())
    start = run(sys.executable, "-c", "from rollbook.cli import main; main()", "pearson", "list", "-q", "-d", dsn)[0]
    print(f"{ROWS} candidates: pearson export {mine:.2f} s, of which {start:.2f} s are the program's start")
    for name, theirs in (("\\copy", copied), ("\\copy, stamp and note", stamped)):
        verdict = "ok" if mine / theirs <= LIMIT else "missed"
        print(f"  against {name}: {theirs:.2f} s, ratio {mine / theirs:.2f} (<= {LIMIT}) {verdict}")
    few, many = peaks.values()
    print(f"  peak memory: {few:.0f} MB with {ROWS // 10}, {many:.0f} MB with {ROWS}")


if __name__ == "__main__":
    main()
