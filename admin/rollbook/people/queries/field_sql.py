"""Pieces of SQL composed from the fields of an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from rollbook.people.fields import USER_FIELDS

if TYPE_CHECKING:
    from rollbook.people.fields import Field


def each(fields: tuple[Field, ...], template: LiteralString, separator: LiteralString = ", ") -> sql.Composed:
    """Return a piece of SQL once for each field, joined.

    In the template, {name} is the column, {text} its name as a string, {type} its type, {empty} the empty value,
    {value} a parameter of its name, {table} the alias of its table: u or p.
    """
    piece = sql.SQL(template)
    return sql.SQL(separator).join(
        piece.format(
            name=sql.Identifier(field.name), text=sql.Literal(field.name), type=sql.SQL(field.type),
            empty=sql.Literal(field.empty), value=sql.Placeholder(field.name),
            table=sql.SQL("u" if field in USER_FIELDS else "p"),
        )
        for field in fields
    )  # fmt: skip
