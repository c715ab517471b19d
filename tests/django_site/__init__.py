"""A live Django site to adopt: stock Django's tables, made once a session, with people as clean or dirty as wanted."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, sql

from rollbook.system.demo.server import PrivateServer
from tests.program import ROOT

Db = Connection[Any]

# A small school without a fault: what django.md calls fine is in it.
CLEAN = """
insert into auth_user (id, username, first_name, last_name, email, password, is_staff, is_active, is_superuser,
    last_login, date_joined) values
    (1, 'ada', 'Ada', 'Foo', 'ada@example.org', 'pbkdf2_sha256$260000$salt$hash', true, true, true,
        '2013-01-01 10:00Z', '2012-09-01 10:00Z'),
    (2, 'bob@example.org', '', '', '', '!aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', false, true, false, null,
        '2012-09-02 10:00Z'),
    (3, 'a+b.c-d_e', '', '', '', 'sha1$salt$hash', false, false, false, null, '2012-09-03 10:00Z'),
    (4, 'eve', '', '', 'Eve@Example.org', '', false, true, false, '2013-02-01 10:00Z', '2012-09-04 10:00Z');
insert into auth_userprofile (id, user_id, name, meta, courseware, language, location, year_of_birth, gender,
    level_of_education, city) values
    (11, 1, 'Ada Foo', '{"old_names": []}', 'course.xml', 'en', '', 1990, 'f', 'm', 'London'),
    (12, 2, 'Bob Bar', '', 'course.xml', '', '', null, '', '', null),
    (14, 4, 'Eve', '', 'course.xml', '', '', 1980, null, null, null);
insert into auth_registration (id, user_id, activation_key) values (21, 1, 'key-of-ada'), (23, 3, 'key-of-abc');
insert into student_courseenrollment (id, user_id, course_id, created) values
    (31, 1, 'edX/toy/2013_Spring', '2013-01-01 10:00Z'), (32, 2, 'edX/toy/2013_Spring', null),
    (33, 1, 'MITx/6.002x/2012_Fall', '2013-01-02 10:00Z');
insert into student_courseenrollmentallowed (id, email, course_id) values
    (41, 'fay@example.org', 'edX/toy/2013_Spring');
insert into student_usertestgroup (id, name, description) values (51, 'testers', '');
insert into student_usertestgroup_users (id, usertestgroup_id, user_id) values (61, 51, 2);
insert into student_pendingnamechange (id, user_id, new_name, rationale) values (71, 1, 'Ada King', 'Marriage');
insert into student_pendingemailchange (id, user_id, new_email, activation_key) values
    (81, 1, 'ada@new.org', 'mail-of-ada');
insert into forum_post (id, author_id, enrollment_id, title) values (91, 1, 31, 'Hello'), (92, 4, null, 'Hi');
"""
# Faults that stock Django's tables can hold, and what a site looks like that was loaded without keys and widths.
DIRTY = """
insert into auth_user (id, username, first_name, last_name, email, password, is_staff, is_active, is_superuser,
    last_login, date_joined) values
    (101, 'John Doe', '', '', 'john@example.org', '!', false, true, false, '2013-01-01 10:00Z', '2013-01-01 10:00Z'),
    (102, E'tab\\there', '', '', 'JOHN@example.org', '!', false, true, false, '2013-03-01 10:00Z', '2013-01-01 10:00Z'),
    (103, '', '', '', 'John@Example.org', '!', false, true, false, null, '2013-01-01 10:00Z'),
    (104, 'nomail', '', '', 'not an address', '!', false, true, false, null, '2013-01-01 10:00Z'),
    (105, E' \\u0007 ', '', '', 'a@@b', '!', false, true, false, null, '2013-01-01 10:00Z'),
    (106, 'loc@l', '', '', '@example.org', '!', false, true, false, null, '2013-01-01 10:00Z'),
    (107, 'fine', '', '', 'fine@localhost', '!', false, true, false, null, '2013-01-01 10:00Z');
insert into auth_userprofile (id, user_id, name, meta, courseware, language, location, year_of_birth, gender,
    level_of_education) values
    (201, 101, '', '[]', '', '', '', 20133, 'x', 'p'),
    (202, 102, '', 'not json', '', '', '', 0, 'male', 'a'),
    (203, 103, '', '"text"', '', '', '', -5, ' Female'::varchar(6), 'M'),
    (204, 104, '', '{"a": 1', '', '', '', 1850, 'M', 'phd'),
    (205, 105, '', 'null', '', '', '', 2100, ' ', ' '),
    (206, 106, '', '{"fine": {}}', '', '', '', 1990, 'o', 'none');
insert into student_courseenrollment (id, user_id, course_id) values (301, 101, ''), (302, 102, 'edX/toy/2013_Spring');
insert into student_courseenrollmentallowed (id, email, course_id) values
    (401, 'nobody', 'edX/toy/2013_Spring'), (402, '', 'edX/toy/2013_Spring'), (403, 'x@example.org', '');
insert into student_usertestgroup (id, name, description) values (501, 'testers', ''), (502, '', '');
insert into student_pendingnamechange (id, user_id, new_name, rationale) values (701, 102, 'X', ''), (702, 103, '', '');
insert into student_pendingemailchange (id, user_id, new_email, activation_key) values (801, 102, 'x', 'k'),
    (802, 103, '', '');
"""
LOOSE = """
do $$
declare
    c record;
begin
    for c in select o.conrelid::regclass as place, o.conname from pg_constraint as o
    where o.conrelid::regclass::text ~ '^(auth_user|auth_registration|student_)'
        and o.contype in ('f', 'u') order by o.contype loop
        execute format('alter table %s drop constraint %I', c.place, c.conname);
    end loop;
    for c in select a.attrelid::regclass as place, a.attname, a.attnotnull, a.atttypid from pg_attribute as a
    inner join pg_class as k on k.oid = a.attrelid and k.relkind = 'r'
    where a.attrelid::regclass::text ~ '^(auth_user|auth_registration|student_)' and a.attnum > 0
        and a.attname <> 'id' and not a.attisdropped loop
        execute format('alter table %s alter %I drop not null', c.place, c.attname);
        if c.atttypid = 'varchar'::regtype then
            execute format('alter table %s alter %I type text', c.place, c.attname);
        end if;
    end loop;
end $$;
"""
LOOSE_ROWS = """
insert into auth_user (id, username, email, first_name, last_name, password) values
    (0, null, null, null, repeat('x', 151), null), (-1, 'ada', '', '', '', '!'),
    (2147483647, repeat('y', 160), '', '', '', '!');
insert into auth_userprofile (id, user_id, name, gender, level_of_education) values
    (211, 1, 'Second', 'other-gender', 'a long level'), (212, 999, 'Orphan', null, null),
    (213, null, 'No', null, null);
insert into auth_registration (id, user_id, activation_key) values
    (221, 4, 'key-of-ada'), (222, 999, 'orphan'), (223, 2, repeat('k', 40));
insert into student_courseenrollment (id, user_id, course_id) values
    (311, 1, 'edX/toy/2013_Spring'), (312, 1, 'edX/toy/2013_Spring'), (313, 999, 'edX/toy/2013_Spring'),
    (314, 2, null), (315, 2, repeat('c', 300));
insert into student_courseenrollmentallowed (id, email, course_id) values
    (411, 'fay@example.org', 'edX/toy/2013_Spring');
insert into student_usertestgroup_users (id, usertestgroup_id, user_id) values
    (611, 51, 2), (612, 999, 2), (613, 51, 999);
insert into student_usertestgroup (id, name) values (511, repeat('g', 40));
insert into student_pendingnamechange (id, user_id, new_name) values (711, 1, 'Ada Twice');
insert into student_pendingemailchange (id, user_id, new_email, activation_key) values
    (811, 4, repeat('m', 300) || '@example.org', 'k1'), (812, 3, null, null);
"""
SEQUENCES = """
select format('select setval(%L, greatest((select max(id) from %s), 1))',
    pg_get_serial_sequence(c.oid::regclass::text, 'id'), c.oid::regclass)
from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid and a.attname = 'id' and a.attidentity <> ''
where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
"""


def add_clean(db: Db) -> None:
    """Four accounts without a fault, with rows in each table; the sequences follow their ids."""
    db.execute(CLEAN)
    for (statement,) in db.execute(SEQUENCES).fetchall():
        db.execute(statement)


def make_tables(dsn: str) -> None:
    """Make the tables of the site in an empty database; 2 seconds."""
    subprocess.run([sys.executable, "-m", "tests.django_site", dsn], check=True, cwd=ROOT, timeout=120)


class DjangoSites:
    """Databases with stock Django's tables in schema public, and no row: each is a copy of one that Django made."""

    def __init__(self, server: PrivateServer) -> None:
        self.server, self.template = server, f"django_{uuid.uuid4().hex[:10]}"
        self.run("create database {}", self.template)
        make_tables(server.dsn(self.template))

    def run(self, statement: Any, *names: str) -> None:
        """Run a statement on the server, outside the databases of the sites."""
        with psycopg.connect(self.server.dsn(), autocommit=True) as conn:
            conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    @contextmanager
    def site(self) -> Iterator[Db]:
        """Yield a session, autocommit, as superuser, on a site of its own, which is dropped in the end."""
        name = f"site_{uuid.uuid4().hex[:10]}"
        self.run("create database {} template {}", name, self.template)
        try:
            with psycopg.connect(self.server.dsn(name), autocommit=True) as conn:
                yield conn
        finally:
            self.run("drop database {} with (force)", name)
