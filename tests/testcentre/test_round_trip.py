"""There and back with a simulated test centre: sent, answered, rejected, corrected, out of order, and again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from psycopg import Connection

from rollbook.system.demo.centre import Centre, read
from tests.school import Rollbook
from tests.testcentre.test_pearson_export import authorize, candidates, sent, users


def test_the_round_trip(rollbook: Rollbook, db: Connection[Any], tmp_path: Path) -> None:
    centre, out = Centre(), tmp_path / "out"
    minutes: Iterator[datetime] = (datetime.now(UTC) + timedelta(minutes=n) for n in count(1))

    def export() -> dict[str, Path]:
        return sent(rollbook("pearson", "export", "-o", str(out), "--json"), out)

    def answer(files: dict[str, Path], name: str) -> str:
        return str(centre.answer(files.values(), tmp_path / name, next(minutes)))

    def outcomes(*archives: str) -> dict[str, list[str]]:
        result = rollbook("pearson", "import", *archives, "--json")
        assert result.code == 0, result
        return {kind: [row["outcome"] for row in result.data if row["member"].startswith(kind)]
                for kind in ("vcdc", "eac")}  # fmt: skip

    def states() -> list[tuple[Any, ...]]:
        return db.execute(
            "select username, demographics_status, registration_status, transaction_type, needs_uploading "
            "from rollbook.authorization_status order by username"
        ).fetchall()

    users(db, 3)
    candidates(db, 1, 2, 3)
    db.execute("update portal.student_testcenteruser set phone = 'none' where user_id = 2")
    db.execute("update portal.student_testcenteruser set suffix = 'Jr.' where user_id = 3")
    for user in (1, 2, 3):
        authorize(db, user)
    db.execute("""update portal.student_testcenterregistration set eligibility_appointment_date_first = '1999-01-01'
        where client_authorization_id = 'edXexam000000000003'""")

    first = export()
    first_answer = answer(first, "first.zip")
    # accepted, rejected with a message, accepted with a warning
    assert outcomes(first_answer) == {
        "vcdc": ["accepted", "rejected", "accepted"], "eac": ["accepted", "accepted", "rejected"]
    }  # fmt: skip
    assert states() == [
        ("user1", "Accepted", "Accepted", "Update", False),
        ("user2", "Rejected", "Accepted", "Update", False),
        ("user3", "Accepted", "Rejected", "Add", False),
    ]
    messages = {row["message"] for row in rollbook("pearson", "report", "rejected", "--json").data}
    assert messages == {"Phone: no digits", "EligibilityApptDateFirst: in the past"}
    # a duplicate, under another name
    shutil.copy(first_answer, tmp_path / "copy.zip")
    assert outcomes(str(tmp_path / "copy.zip")) == {"vcdc": ["unchanged"] * 3, "eac": ["unchanged"] * 3}
    assert [path.stat().st_size > 0 for path in export().values()] == [True, True]  # nothing is due: headers

    # corrected, sent again, and edited again before the answer is there
    db.execute("update portal.student_testcenteruser set phone = '555-1234' where user_id = 2")
    db.execute("update portal.student_testcenterregistration set eligibility_appointment_date_first = '2013-01-01'")
    second = export()
    assert [row["Phone"] for row in read(second["cdd"])] == ["555-1234"]
    assert [row["AuthorizationTransactionType"] for row in read(second["ead"])] == ["Add"]
    second_answer = answer(second, "second.zip")
    db.execute("update portal.student_testcenteruser set city = 'Ottawa' where user_id = 2")
    third = export()
    third_answer = answer(third, "third.zip")
    # out of order: the newest answer first; the older one changes no candidate
    assert outcomes(third_answer) == {"vcdc": ["accepted"], "eac": []}
    assert outcomes(second_answer, first_answer) == {
        "vcdc": ["older", "unchanged", "older", "unchanged"], "eac": ["accepted", "unchanged", "unchanged", "unchanged"]
    }  # fmt: skip
    assert states() == [
        ("user1", "Accepted", "Accepted", "Update", False),
        ("user2", "Accepted", "Accepted", "Update", False),
        ("user3", "Accepted", "Accepted", "Update", False),
    ]
    numbers = "select candidate_id is not null from portal.student_testcenteruser"
    assert db.execute(numbers).fetchall() == [(True,)] * 3
    assert rollbook("pearson", "report", "waiting", "--json").data == []
    assert [row["waiting"] for row in rollbook("pearson", "list", "--json").data if row["archive"] is None] == [0] * 8
