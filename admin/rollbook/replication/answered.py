"""What a course server or a relay answers, before a part of it is printed to be executed.

Whoever owns a server decides what its functions return, and how its objects are called. So no statement of a server is
printed that is not, word for word, one of those below, with names and types in their places; and no name with a line
end, a character that is not to be seen, or one of those that begin a command in psql or a shell.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

from rollbook.core.shell import BEGINNERS, course_word
from rollbook.core.values import UNSEEN

NAME = rf'(?:[a-z_][a-z0-9_]*|"(?:[^"{BEGINNERS}]|"")+")'
PLACE = rf"{NAME}(?:\.{NAME}){{0,2}}"
TYPE = rf"(?:[a-z][a-z0-9_ ]*|{PLACE})(?:\([0-9]+(?:,[0-9]+)?\))?(?: with(?:out)? time zone)?(?:\[\])*"
PARTS = {
    "NAME": NAME,
    "PLACE": PLACE,
    "TYPE": rf"{TYPE}(?: collate {PLACE})?",
    "ROUTINE": rf"{PLACE}\((?:{TYPE}(?:, ?{TYPE})*)?\)",
    "TEXT": rf"'(?:[^'{BEGINNERS}]|'')*'",
    "NUMBER": r"[0-9]+",
    "PATH": r"(?:/[\w./+@:=-]+|'/[\w./ +@:=-]+')",  # of a file, as a word for a shell
}
# Parts in capital letters; {} are alternatives, [] may be absent.
SHAPES = r"""
alter table PLACE disable trigger NAME
alter table PLACE [drop constraint NAME, ]add primary key (NAME)
alter table PLACE drop constraint NAME
alter table PLACE alter column NAME drop {default|expression|identity|not null}
alter table PLACE alter column NAME type TYPE using NAME::TYPE
alter table PLACE add column NAME TYPE
alter table PLACE replica identity {default|full}
alter table PLACE {no force|disable} row level security
alter table PLACE no inherit PLACE
alter {table|view} PLACE owner to NAME
alter domain PLACE drop constraint NAME
alter schema NAME owner to NAME
alter function ROUTINE set search_path = NAME, pg_temp
drop index PLACE
drop {policy|rule|trigger} NAME on PLACE
drop statistics PLACE
drop event trigger NAME
drop schema NAME cascade
drop trigger if exists {rollbook_guard_copy|rollbook_guard_copy_update} on PLACE
grant all on {schema|table} PLACE to rollbook_owner
grant rollbook_owner to NAME
grant usage on sequence PLACE to rollbook_owner
grant {pg_monitor|rollbook_monitor|rollbook_subscriber} to NAME
grant execute on function {pg_show_replication_origin_status|pg_hba_file_rules}() to NAME
grant select on pg_hba_file_rules to NAME
grant set on parameter session_replication_role to NAME
revoke execute on function ROUTINE from NAME cascade
revoke create on schema rollbook from NAME cascade
revoke NAME from NAME
alter default privileges for role rollbook_owner [in schema NAME ]revoke trigger, references on tables from NAME
set role NAME
reset role
alter role NAME {nocreaterole|nocreatedb|nobypassrls|connection limit 10}
revoke temporary on database NAME from public, NAME
revoke execute on function lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) from public, NAME
alter role rollbook_owner nosuperuser nologin nocreaterole nocreatedb noreplication nobypassrls
alter role NAME set idle_in_transaction_session_timeout = '1min'
alter {role|database} NAME reset session_replication_role
alter role NAME in database NAME reset session_replication_role
alter system set session_replication_role = origin
select pg_reload_conf()
restart it
alter subscription NAME {disable|enable}
alter subscription NAME set (disable_on_error = false)
alter subscription NAME set (synchronous_commit = local)
alter subscription NAME set (run_as_owner = false)
alter subscription NAME set (slot_name = none)
alter subscription NAME set (failover = true)
alter subscription NAME set publication NAME with (refresh = false)
drop {subscription|publication} NAME
alter publication NAME set (publish = 'insert, update, delete')
alter publication NAME drop tables in schema NAME
alter publication NAME drop table PLACE
select pg_stat_reset_subscription_stats(NUMBER)
select pg_terminate_backend(NUMBER)
select pg_replication_origin_drop(TEXT)
select pg_drop_replication_slot(TEXT)
{rollback|commit} prepared TEXT
checkpoint
reindex database NAME
alter database NAME refresh collation version
pg_ctl restart -D PATH
systemctl restart postgresql
grep archive_command the log of the server
pip install --upgrade rollbook
pg_upgrade
"""
# Settings that a server is advised to have.
SETTINGS = (
    "wal_level|max_slot_wal_keep_size|idle_replication_slot_timeout|wal_sender_timeout|wal_receiver_timeout|"
    "plan_cache_mode|fsync|full_page_writes|autovacuum|track_counts|timezone|synchronized_standby_slots|"
    "max_replication_slots|max_wal_senders|max_active_replication_origins|max_logical_replication_workers|"
    "max_worker_processes"
)
# Those with parts that repeat, and those with backslashes of their own.
OTHERS = (
    r"alter table PLACE add column NAME TYPE(?:, add column NAME TYPE)+",
    r"CREATE TRIGGER rollbook_guard_copy BEFORE INSERT OR DELETE OR TRUNCATE ON PLACE FOR EACH STATEMENT "
    r"WHEN \(\(CURRENT_USER <> 'rollbook_owner'::text\)\) EXECUTE FUNCTION rollbook\.guard_copy\(\)",
    r"CREATE TRIGGER rollbook_guard_copy_update AFTER UPDATE ON PLACE FOR EACH ROW "
    r"WHEN \(\(CURRENT_USER <> 'rollbook_owner'::text\)\) EXECUTE FUNCTION rollbook\.guard_copy\(TEXT(?:, TEXT)*\)",
    r"revoke (?:trigger|references)(?: \(NAME\))?(?:, (?:trigger|references)(?: \(NAME\))?)* on PLACE "
    r"from NAME cascade",
    r"alter publication NAME add table PLACE \(NAME(?:, NAME)*\)",
    rf"alter system set (?:{SETTINGS}) = (?:NUMBER|'[\w/+, -]*')",
    r"sed -i '[0-9]+s/\^/# /' PATH",
    r"sed -i '[0-9]+s/\\\(\.\*\\\)\\b(?:trust|password)\\b/\\1scram-sha-256/' PATH",
    r"""sed -i '[0-9]+i (?:host|local) replication (?:[\w.@-]+|"[\w.@ -]+")(?: all)? reject' PATH""",
)
PART = re.compile(r"\b(?:" + "|".join(PARTS) + r")\b")
STEP = re.compile("; then: |; or: |; ")
ABOUT_COURSES = re.compile(r"rollbook replication (?:resync|repair) (.+)")
ABOUT_SERVER = re.compile(
    r"rollbook (?:server (?:ping|add) (\w+)|server remove (\w+) --yes|replication resume --server (\w+))"
)
ON_SERVER = re.compile(r"on server (\w+): (.+)")


def pattern(shape: str) -> str:
    """Return a line of SHAPES as a regular expression."""
    text = re.escape(shape).replace(r"\ ", " ")
    for ours, theirs in ((r"\{", "(?:"), (r"\}", ")"), (r"\[", "(?:"), (r"\]", ")?"), (r"\|", "|")):
        text = text.replace(ours, theirs)
    return text


KNOWN = re.compile(
    "|".join(
        PART.sub(lambda found: PARTS[found[0]], each)
        for each in (*map(pattern, SHAPES.strip().splitlines()), *OTHERS)
    )
)  # fmt: skip


def is_known(
    text: str, *, ours: Collection[str] = (), servers: Collection[str] = (), courses: Collection[str] = ()
) -> bool:
    """Return whether each step of what a server answers is a statement of this program.

    `ours`: commands that this program gave; `servers` and `courses`: what its other commands may be about.
    """
    if text in ours:
        return True
    if "\n" in text or UNSEEN.search(text):
        return False
    for step in STEP.split(text):
        there = ON_SERVER.fullmatch(step)
        words = (step if there is None or there[1] not in servers else there[2]).removesuffix(";")
        if not (KNOWN.fullmatch(words) or words in ours or is_command(words, servers, courses)):
            return False
    return True


def is_command(words: str, servers: Collection[str], courses: Collection[str]) -> bool:
    """Return whether these are a command about such servers or courses, as this program writes it."""
    if found := ABOUT_SERVER.fullmatch(words):
        return next(filter(None, found.groups())) in servers
    found = ABOUT_COURSES.fullmatch(words)
    if found is None:
        return False
    try:
        named = shlex.split(found[1])
    except ValueError:
        return False
    return set(named) <= set(courses) and " ".join(map(course_word, named)) == found[1]


def statement(text: str | None) -> str | None:
    """Return the SQL that a server answers if it is a statement of this program, else None."""
    return text if text is not None and is_known(text) else None


def look(server: str) -> str:
    """Return what is printed in place of a statement of a server that may not be printed."""
    return f"look at it on server {server}: a name there, or what it answers, is not fit for a command"
