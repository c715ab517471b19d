"""Revision 0005 on a database with records: what was accepted before is known to be, and two for an exam are named."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from rollbook import cli

OLD = """
insert into portal.auth_user (id, username) values (1, 'ada');
insert into portal.student_testcenteruser (
    id, user_id, client_candidate_id, first_name, last_name, address_1, city, country, phone, phone_country_code
)
values (1, 1, 'edX000000000001', 'A', 'F', 'S', 'C', 'GBR', '1', '44');
insert into portal.student_testcenterregistration (
    id, testcenter_user_id, course_id, client_authorization_id, exam_series_code, eligibility_appointment_date_first,
    eligibility_appointment_date_last, uploaded_at, processed_at, upload_status
)
values
(1, 1, 'c', 'edXexam000000000001', 'e1', '2013-01-01', '2013-01-02', '2012-01-01', '2012-01-02', 'Accepted'),
(2, 1, 'c', 'edXexam000000000002', 'e2', '2013-01-01', '2013-01-02', '2012-01-01', '2012-01-02', 'Error')
"""


def move(verb: str, to: str, dsn: str) -> int:
    """Take the database to a revision; return the exit code."""
    return cli.run(["schema", verb, "--to", to, *(["--yes"] if verb == "downgrade" else []), "-d", dsn])


def test_what_was_accepted_before_is_sent_as_update_and_what_was_rejected_as_add(db: Connection[Any], dsn: str) -> None:
    assert move("downgrade", "0004", dsn) == 0
    db.execute(OLD)
    assert move("upgrade", "0005", dsn) == 0
    db.execute("update portal.student_testcenterregistration set eligibility_appointment_date_last = '2013-01-03'")
    states = "select needs_uploading, transaction_type from rollbook.authorization_status order by id"
    assert db.execute(states).fetchall() == [(True, "Update"), (True, "Add")]


def test_two_for_one_exam_stop_the_upgrade_and_nothing_is_half_done(db: Connection[Any], dsn: str, capsys: Any) -> None:
    assert move("downgrade", "0004", dsn) == 0
    db.execute(OLD)
    db.execute("update portal.student_testcenterregistration set exam_series_code = 'e1'")
    capsys.readouterr()
    assert move("upgrade", "0005", dsn) == 1
    assert "(1, c, e1)" in capsys.readouterr().err
    assert db.execute("select version_num from rollbook_revision").fetchone() == ("0004",)
    db.execute("update portal.student_testcenterregistration set exam_series_code = 'e2' where id = 2")
    assert move("upgrade", "0005", dsn) == 0
