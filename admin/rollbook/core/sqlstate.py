"""What an error of the server means to the user: from SQLSTATE, by code or else by class, to one of our errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from rollbook.core.conninfo import masked, sentences
from rollbook.core.errors import AdminError, AttentionError, RefusedError, UnreachableError
from rollbook.core.lock_wait import holders_of

# Constraint -> message. Every other error keeps the server's words.
IN_WORDS = {
    "auth_user_username_key": "An account with this username already exists: the username is taken",
    "auth_user_username_lower_key": "An account with this username already exists: the username is taken (capitals do "
    "not matter)",
    "auth_user_email_key": "An account with this e-mail already exists: it belongs to another user (case-insensitive)",
    "auth_user_username_check": "a username cannot be empty or contain blanks or control characters",
    "auth_user_email_check": "this is not an e-mail address",
    "student_pendingemailchange_new_email_check": "Valid e-mail address required.",
    "student_pendingemailchange_new_email_width": "an e-mail address has at most 254 characters",
    "student_pendingnamechange_new_name_check": "Name required",
    "student_testcenteruser_user_id_key": "this user is already a candidate: use rollbook candidate update",
    "student_testcenterregistration_exam_key": "this candidate already has an authorization for this exam",
    "student_usertestgroup_name_key": "a group with this name already exists",
    "student_usertestgroup_name_check": "a group needs a name",
    "auth_userprofile_meta_check": "meta must be a JSON object",
    "auth_userprofile_gender_check": "gender must be m, f or o",
    "auth_userprofile_level_of_education_check": "level of education is p_se, p_oth, m, b, hs, jhs, el, none or other",
}
REFUSALS = ("RB", "23R")  # Rollbook's own; 23R: a rule on data, an integrity error to drivers
FORBIDDEN = ("23503", "23001")  # by a foreign key
# The portal's tables with foreign keys: these cascade, and so forbid no deletion.
CASCADING = {
    "auth_userprofile", "auth_registration", "student_courseenrollment", "student_usertestgroup_users",
    "student_pendingnamechange", "student_pendingemailchange", "student_testcenteruser",
    "student_testcenterregistration",
}  # fmt: skip
AGAIN = "run the command again: another session changed the same rows at the same time"
SERVER_LOG = "check the server's log; report it if the server is healthy"


@dataclass(frozen=True)
class Meaning:
    """What an SQLSTATE means: our error, the fact (None: the server's words), and the remedy."""

    error: type[AdminError]
    fact: str | None = None
    fix: str | None = None


REFUSED = Meaning(RefusedError)
INTERNAL = Meaning(UnreachableError, "the server could not run a statement of this program", SERVER_LOG)
OTHER_OBJECTS = Meaning(
    UnreachableError, "an object of the database is not as this program expects it", "rollbook schema check"
)
NO_ANSWER = Meaning(UnreachableError, "the server did not answer")

# Class -> meaning, for all classes of PostgreSQL. Any other class is what somebody's own function raises: a refusal.
CLASSES = {
    **dict.fromkeys(
        ("00", "01", "02", "03", "09", "0F", "0Z", "10", "20", "21", "24", "26", "27", "2D", "2F", "34", "38", "39",
         "3B", "XX"), INTERNAL,
    ),
    **dict.fromkeys(("0A", "0B", "0L", "0P", "22", "23", "2B", "44", "54", "55", "P0"), REFUSED),
    "08": NO_ANSWER,
    "25": Meaning(UnreachableError, "the server does not allow this in its present state"),
    "28": Meaning(UnreachableError, "the server did not let this role in", "check user, password and pg_hba.conf"),
    "3D": Meaning(UnreachableError, "there is no such database", "name another one with -d CONNINFO"),
    "3F": OTHER_OBJECTS,
    "40": Meaning(RefusedError, None, AGAIN),
    "42": OTHER_OBJECTS,
    "53": Meaning(UnreachableError, "the server lacks a resource", "free some there, then run the command again"),
    "57": NO_ANSWER,
    "58": Meaning(UnreachableError, "the server could not read or write its own files", "check its disks and its log"),
    "72": Meaning(UnreachableError, "the server no longer has the rows of this snapshot", "run the command again"),
    "F0": Meaning(UnreachableError, "the server's configuration has an error", "see the server's log, and correct it"),
    "HV": Meaning(UnreachableError, "a foreign table of the database did not answer", "ask the owner of the database"),
}  # fmt: skip

# Code -> meaning, where the class alone says too little.
STATES = {
    "2200H": Meaning(RefusedError, None, "rollbook schema check: it prints the statement that raises its end"),
    "22P05": Meaning(RefusedError, None, "move to a database with encoding 'UTF8': this one cannot hold every name"),
    "25006": Meaning(
        UnreachableError, "this session is read-only", "connect to the primary, or to a session that may write"
    ),
    "25P03": Meaning(
        UnreachableError, "the server ended the session: its transaction was idle too long",
        "run the command again; raise idle_in_transaction_session_timeout of this role if it happens again",
    ),
    "25P04": Meaning(
        UnreachableError, "the server ended the session: its transaction took too long",
        "raise transaction_timeout of this role",
    ),
    "2F003": Meaning(
        UnreachableError, "a role that is not a superuser must give a password to connect to another server",
        "put password=... into --subscription-dsn, or name a superuser in --admin-dsn",
    ),
    "40003": Meaning(UnreachableError, "the connection was lost during a commit", "check whether it was done"),
    "42501": Meaning(
        UnreachableError, "permission is missing",
        "ask the owner of the database for the permission that the server names",
    ),
    "42P06": Meaning(RefusedError, None, "rename the existing object"),
    "53100": Meaning(
        UnreachableError, "the disk of the database server is full", "free some space there, then run the command again"
    ),
    "53200": Meaning(
        UnreachableError, "the server is out of memory",
        "if it is shared memory, raise max_locks_per_transaction (about 10 locks for each course that one statement "
        "touches); else run fewer sessions at a time, or lower work_mem",
    ),
    "53300": Meaning(
        UnreachableError, "the server has no connection left",
        "end sessions that are not needed, or raise max_connections",
    ),
    "53400": Meaning(
        UnreachableError, "a limit of the server is reached",
        "raise the limit that the server names: it is set for the role, the database or the server",
    ),
    "55P03": Meaning(NO_ANSWER.error, NO_ANSWER.fact, "try again when the other session is done"),
    "57014": Meaning(NO_ANSWER.error, NO_ANSWER.fact, "allow more time with --timeout SECONDS"),
    "57P03": Meaning(UnreachableError, "the server does not accept connections now", "try again in a moment"),
    "57P05": Meaning(
        UnreachableError, "the server ended the session: it was idle too long",
        "run the command again; raise idle_session_timeout of this role if it happens again",
    ),
}  # fmt: skip
# A connection that is refused brings words alone. Another language's are not known: then the general advice is given.
REFUSED_CONNECTIONS = {
    r"too many clients|remaining connection slots": "53300",
    r"too many connections for (role|database)": "53400",
    r"authentication failed|no pg_hba.conf entry|role .* (does not exist|is not permitted)": "28000",
    r"database .* does not exist": "3D000",
    r"is (starting up|shutting down|not yet accepting)|in recovery mode": "57P03",
}
EXISTING = {"42P06", "42P07", "42710", "42723"}
STATES |= dict.fromkeys(EXISTING, STATES["42P06"])

NOT_MIGRATED = {"42P01", "42883", "3F000", "42704", "42703"}


def translate(exc: psycopg.Error) -> AdminError:
    """Return what an error of the server, or of libpq, means to the user. Raises `exc` if it has no SQLSTATE.

    A course server gives no remedy, and no names for one: whoever owns it chose them.
    """
    state = exc.sqlstate or ""
    is_portal = getattr(exc, "server", None) is None
    hint = exc.diag.message_hint if is_portal else None
    said = masked(exc.diag.message_primary or str(exc).strip().removeprefix("connection is bad: "))
    why = f"{said} (SQLSTATE {state})" if state else sentences(said)
    if state.startswith(REFUSALS):
        error = UnreachableError if state == "RB019" else RefusedError  # RB019: a role without the right
        return error(said, why=exc.diag.message_detail, fix=hint, sqlstate=state)
    if state in NOT_MIGRATED and re.search(r"rollbook|portal", said):
        return AttentionError(
            "the database is not migrated, or not to the head that this program needs", why=why,
            fix="rollbook schema upgrade", sqlstate=state,
        )  # fmt: skip
    if state in NOT_MIGRATED:
        return RefusedError(
            said, why="a table or column of the portal or of a course is gone, or has another name",
            fix="rollbook schema check", sqlstate=state,
        )  # fmt: skip
    if holders := holders_of(exc):
        ends = " ".join(holder.fix for holder in holders if holder.fix)
        return UnreachableError(
            "another session holds a lock that this command needs",
            why="it waited for " + ", ".join(holder.words for holder in holders),
            fix=f"run the command again when that session is done{f', or end it: {ends}' if ends else ''}",
            sqlstate=state,
        )
    if state == "XX000" and "concurrently" in said:  # two sessions alter one object of the catalog
        return RefusedError(said, why="another session changed the same object at the same time", fix=AGAIN)
    if state:
        meaning = STATES.get(state) or CLASSES.get(state[:2], REFUSED)
        if meaning.fact:
            return meaning.error(meaning.fact, why=why, fix=meaning.fix, sqlstate=state)
        words = IN_WORDS.get(exc.diag.constraint_name or "", said)
        if is_portal and state == "23505" and (line := sequence_line(exc)):
            return RefusedError(
                words, why="the sequence of the ids is behind: rows were loaded with ids of their own", fix=line,
                sqlstate=state,
            )  # fmt: skip
        if is_portal and state in FORBIDDEN and (place := referring_table(exc)):
            return RefusedError(
                f"table {place} has rows that refer to what is to be deleted", why=exc.diag.message_detail or why,
                fix=f"delete or change those rows first, or let {exc.diag.constraint_name} of {place} cascade",
                sqlstate=state,
            )  # fmt: skip
        # The detail of these two is the whole row, password hash included.
        detail = None if state in ("23502", "23514") else exc.diag.message_detail
        return meaning.error(words, why=detail or raised_by(exc) or why, fix=meaning.fix or hint, sqlstate=state)
    if isinstance(exc, psycopg.DataError):
        return RefusedError("a value cannot be stored", why=why)
    if isinstance(exc, psycopg.OperationalError | psycopg.ProgrammingError):
        if known := next((state for words, state in REFUSED_CONNECTIONS.items() if re.search(words, why)), None):
            meaning = STATES.get(known) or CLASSES[known[:2]]
            return UnreachableError(meaning.fact or said, why=why, fix=meaning.fix)
        return UnreachableError(
            "cannot connect to the database", why=why,
            fix="name it with -d CONNINFO, ROLLBOOK_DSN or libpq's PG* variables, and check that the server is running",
        )  # fmt: skip
    raise exc


def sequence_line(exc: psycopg.Error) -> str | None:
    """Return the SQL that moves a sequence past the ids of its table; None where another key is taken.

    This program gives no ids itself: a primary key that is taken came from the sequence.
    """
    if exc.diag.constraint_name != f"{exc.diag.table_name}_pkey" or "(id)=" not in (exc.diag.message_detail or ""):
        return None
    place = sql.Identifier(exc.diag.schema_name or "", exc.diag.table_name or "").as_string()
    if re.fullmatch(r'"[a-z_]+"\."[a-z_]+"', place):
        place = place.replace('"', "")
    literal = place.replace("'", "''")
    return f"select setval(pg_get_serial_sequence('{literal}', 'id'), (select max(id) from {place}));"  # noqa: S608 (to be read)


def referring_table(exc: psycopg.Error) -> str | None:
    """Return the table whose foreign key forbids a deletion; None for a table of ours: what it refers to is missing."""
    schema, table = exc.diag.schema_name, exc.diag.table_name
    return f"{schema}.{table}" if table and schema != "rollbook" and table not in CASCADING else None


def raised_by(exc: psycopg.Error) -> str | None:
    """Return which function of the database raised an error, None where none did."""
    found = re.match(r"PL/pgSQL function (\S+\)) line \d+ at RAISE", exc.diag.context or "")
    return f"the database's function {found[1]} refuses it (SQLSTATE {exc.sqlstate})" if found else None


@contextmanager
def translated() -> Iterator[None]:
    """Turn every psycopg error inside into ours."""
    try:
        yield
    except psycopg.Error as exc:
        raise translate(exc) from exc
