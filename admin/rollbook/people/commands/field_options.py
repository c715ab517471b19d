"""The options of the fields of an account."""

import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from rollbook.people.fields import FIELDS, Field

PANEL = "Fields"


def option(field: Field) -> inspect.Parameter:
    """Return the parameter of a field."""
    kind: Any = StrEnum(field.name.title(), list(field.choices)) if field.choices else str
    more: dict[str, Any] = {} if field.choices else {"metavar": "TEXT"}
    if field.type == "integer":
        kind, more = int, {"metavar": "YEAR", "min": 1, "max": 9999}
    annotation = Annotated[kind | None, typer.Option(help=field.help or None, rich_help_panel=PANEL, **more)]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def with_fields(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command an option for each field; the values that are given reach it as one mapping, `given`."""
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "given"]

    def call(*args: Any, **values: Any) -> int | None:  # noqa: ANN401
        fields = {field.name: values.pop(field.name, None) for field in FIELDS}
        given = {
            name: str(value) if isinstance(value, StrEnum) else value
            for name, value in fields.items()
            if value is not None
        }
        return function(*args, given=given, **values)

    call.__doc__ = function.__doc__
    call.__signature__ = signature.replace(parameters=[*own, *map(option, FIELDS)])  # type: ignore[attr-defined]
    return call
