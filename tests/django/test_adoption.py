"""A project that Django's `migrate` has made is adopted, moved and in place; Django goes on, and alters columns.

In place rollbook.alter_site_table does it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

from tests.conftest import Cluster
from tests.program import ROOT
from tests.school import Rollbook

EXAMPLE = ROOT / "examples" / "django"
SITE = """
import sys
from django.conf import settings
host, search_path, script = sys.argv[1:4]
settings.configure(
    SECRET_KEY="x", ROOT_URLCONF="django.contrib.auth.urls", USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "site", "USER": "postgres", "HOST": host,
                           "OPTIONS": {"options": "-c search_path=" + search_path}}})
import django
django.setup()
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connection
from django.db.migrations.state import ProjectState
exec(script)
"""
BEFORE = """
call_command("migrate", verbosity=0)
User.objects.create_user("ada", "ada@example.org", "pw").groups.add(Group.objects.create(name="tutors"))
"""
# What a migration of the site's does, in place and moved.
AFTER = """
call_command("migrate", verbosity=0)
call_command("migrate", check_unapplied=True, verbosity=0)
call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
call_command("check", databases=["default"])
ada = authenticate(username="ada", password="pw")
assert ada.groups.get().name == "tutors"
with connection.cursor() as cursor:
    cursor.execute("insert into portal.student_courseenrollment (user_id, course_id) values (%s, 'edX/toy')", [ada.pk])
from people.in_place import widen_email
with connection.schema_editor() as editor:
    state = ProjectState.from_apps(django.apps.apps)
    widen_email.database_forwards("auth", editor, state, state)
ada.email = "ada@new.org"
ada.save()
User.objects.create_user("bob").delete()
"""


@pytest.fixture
def site(cluster: Cluster) -> Iterator[Connection[Any]]:
    """An empty database."""
    with psycopg.connect(cluster.server.dsn(), autocommit=True) as server:
        server.execute("create database site")
        with psycopg.connect(cluster.server.dsn("site"), autocommit=True) as conn:
            yield conn
        server.execute("drop database site with (force)")


@pytest.mark.slow
@pytest.mark.parametrize(("how", "search_path"), [("--in-place", "public"), ("--to=portal", "portal,public")])
def test_django_goes_on_after_an_adoption(
    site: Connection[Any], cluster: Cluster, rollbook: Rollbook, how: str, search_path: str
) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(EXAMPLE), "PYTHONDONTWRITEBYTECODE": "1"}

    def django(script: str, path: str) -> None:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SITE, str(cluster.server.home), path, script],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    dsn = cluster.server.dsn("site")
    django(BEFORE, "public")
    adopted = rollbook("schema", "adopt", how, "--yes", dsn=dsn)
    assert adopted.code == 0, adopted.out + adopted.err
    assert rollbook("course", "create", "edX/toy", dsn=dsn).code == 0
    recorded = site.execute("select count(*) from django_migrations").fetchall() if how == "--in-place" else []
    assert rollbook("schema", "django", dsn=dsn).code == 0  # finds all that it would make
    assert not recorded or site.execute("select count(*) from django_migrations").fetchall() == recorded
    django(AFTER, search_path)

    assert site.execute("select email from course_edx_toy.auth_user").fetchall() == [("ada@new.org",)]
    assert site.execute("select * from rollbook.verify()").fetchall() == []
    found = rollbook("schema", "check", "--csv", "--fields", "object,fix", "--no-header", dsn=dsn)
    (line,) = found.out.splitlines()
    assert line.startswith("course_edx_toy.auth_user,")
    site.execute(sql.SQL(line.split(",", 1)[1].strip('"')))
    assert rollbook("schema", "check", dsn=dsn).code == 0
    rights = (
        "select has_column_privilege('rollbook_monitor', 'portal.auth_user', c, 'select') from unnest(%s::text[]) as c"
    )
    assert site.execute(rights, [["email", "password"]]).fetchall() == [(True,), (False,)]
