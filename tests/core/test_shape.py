"""core/shape.py: the file of a shape, and what is rendered from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rollbook.core.errors import UsageError
from rollbook.core.migrating import MIGRATIONS, SQL
from rollbook.core.shape import SHAPES, default, load, parse, shaped, statements, toml

SMALL = """
[person]
table = "people"
key = "id"
columns = ["order", "id"]
[membership]
table = '"My School".member'
key = "id"
person = "person"
course = "course"
condition = "state = 'it''s on'"
[without]
default = ["order"]
"""
FILES = [*sorted(SQL.rglob("*.sql")), *sorted((MIGRATIONS / "tables").rglob("*.sql"))]


@pytest.mark.parametrize("path", sorted(SHAPES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_shape_that_ships_is_written_as_it_is_read(path: Path) -> None:
    assert parse(toml(load(path)), "written") == load(path)


def test_names_are_quoted_and_keys_travel() -> None:
    shape = parse(SMALL, "small")
    person, membership = shape.tables
    assert (person.relation, person.columns, person.keys) == ("public.people", ("order", "id"), ("id",))
    assert (membership.relation, membership.name) == ('"My School".member', "member")
    assert membership.columns == ("id", "person", "course")
    assert membership.source == "(select id, person, course from \"My School\".member where state = 'it''s on')"
    assert shaped(":person :'membership' :person_changes :membership_condition x::text", shape) == (
        "public.people '\"My School\".member' "
        'case when record_image_ne(row(o."order"), row(n."order")) then \'"order"\' end '
        "(state = 'it''s on') x::text"
    )
    assert parse(toml(shape), "again") == shape


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[person]", "[persons]"), r"persons is unknown.*person"),
        (('key = "id"\ncolumns', 'keys = "id"\ncolumns'), r"\[person\] keys is unknown.*the nearest is key"),
        (('key = "id"\nperson', "key = 3\nperson"), r"\[membership\] key must be a text"),
        (('course = "course"', ""), r"\[membership\] course must be a text"),
        (('["order", "id"]', '["order", "order"]'), "twice"),
        (('["order", "id"]', '"order"'), r"columns must be a list of names"),
        (("'\"My School\".member'", '"other.people"'), "two tables people"),
        (("'\"My School\".member'", '"route"'), "names a table route"),
        (("'\"My School\".member'", '"a.b.c"'), "a.b.c is not the name of a table"),
        (('["order"]', '"order"'), "lists of columns"),
        (("[person]", "[person"), "not TOML"),
        (("[membership]", "[without]"), r"without|TOML"),
    ],
)
def test_a_wrong_file_is_one_error(change: tuple[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(SMALL.replace(*change, 1), "small")
    error = caught.value
    assert re.search(words, f"{error.message} {error.why} {error.fix}", re.DOTALL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_renders_without_a_profile(path: Path) -> None:
    text = path.read_text()
    assert "".join(statements(text)) == text
    for shape in (default(), parse(SMALL, "small")):
        left = re.findall(
            r"(?<![:\w]):'?(?:person|profile|membership|relations|schemas|shape_rows)\w*", shaped(text, shape)
        )
        assert left == []
