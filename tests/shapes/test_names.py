"""Names that need quotes, or that the functions use themselves: schema, tables, columns, and those of a condition."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.conftest import Cluster
from tests.shapes.test_platforms import Call

SHAPE = """
[person]
table = '"Uni Site"."user"'
key = "Nr"
columns = ["order", "n", "o's"]
[membership]
table = '"Uni Site".member'
key = "id"
person = "user"
course = "Course"
condition = '"n" > 0 and "o" is not null'
columns = ["n", "o"]
"""
TABLES = """
create schema "Uni Site";
create table "Uni Site"."user" ("Nr" smallint primary key, "order" text, n integer, "o's" text);
create table "Uni Site".member (
    id bigserial primary key, "user" smallint not null references "Uni Site"."user", "Course" smallint not null,
    n integer, o text
);
"""
WRITES = """
insert into "Uni Site"."user" values (1, 'a', 1, 'x'), (2, 'b', 2, 'y');
insert into "Uni Site".member ("user", "Course", n, o) values (1, 7, 1, 'x'), (2, 7, 0, 'x');
update "Uni Site".member set n = 1 - n;
update "Uni Site".member set n = 5 where id = 2;
update "Uni Site"."user" set "order" = 'c', "o's" = 'z';
update "Uni Site"."user" set "order" = 'd' where "Nr" = 2;
delete from "Uni Site".member where id = 1;
update "Uni Site".member set o = null;
update "Uni Site".member set o = 'w';
"""


@pytest.mark.slow
def test_names_that_need_quotes_or_are_those_of_variables(cluster: Cluster, call: Call, tmp_path: Path) -> None:
    (tmp_path / "shape.toml").write_text(SHAPE)
    name = sql.Identifier(f"names_{uuid.uuid4().hex[:10]}")
    with psycopg.connect(cluster.server.dsn(), autocommit=True) as server:
        server.execute(sql.SQL("create database {} template template0").format(name))
        dsn = cluster.server.dsn(name.as_string().strip('"'))
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(TABLES)
            assert call("schema", "upgrade", "--shape", str(tmp_path / "shape.toml"), "-d", dsn).code == 0
            assert call("course", "create", "7", "--on-leave", "remove", "-d", dsn).code == 0
            for statement in WRITES.strip().splitlines():
                conn.execute(statement.encode())
            assert conn.execute('select * from course_7."user"').fetchall() == [(2, "d", 2, "z")]
            assert conn.execute("select * from course_7.member").fetchall() == [(2, 2, 7, 5, "w")]
            for command in (("replication", "verify"), ("schema", "check"), ("schema", "grant"), ("shape", "show")):
                done = call(*command, "-d", dsn)
                assert done.code == 0, (command, done)
        server.execute(sql.SQL("drop database {} with (force)").format(name))
