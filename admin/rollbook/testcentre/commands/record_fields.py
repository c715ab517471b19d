"""Options that set the fields of a candidate or an authorization."""

import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import typer

from rollbook.testcentre.exchange_file import FIELD_NAMES, FIELDS

DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M"]

First = Annotated[
    datetime | None,
    typer.Option(
        "--first", "--eligibility-appointment-date-first", metavar="DATE", formats=DATES,
        help="First day, YYYY-MM-DD.",
    ),
]  # fmt: skip
Last = Annotated[
    datetime | None,
    typer.Option(
        "--last", "--eligibility-appointment-date-last", metavar="DATE", formats=DATES, help="Last day, YYYY-MM-DD."
    ),
]  # fmt: skip
Codes = Annotated[
    list[str],
    typer.Option(
        "--accommodation", "--accommodation-code", metavar="CODE",
        help="Code to grant, such as ET30MN; NONE refuses all. Repeat it, or join codes with *.",
    ),
]  # fmt: skip
Request = Annotated[
    str | None,
    typer.Option(
        "--request", "--accommodation-request", metavar="TEXT", help="Accommodation that the student requests."
    ),
]


def with_fields(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a command an option for each field; it receives those that are used as one mapping, `given`."""
    signature = inspect.signature(function, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != "given"]
    fields = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[
                str | None, typer.Option(metavar="TEXT", help=field.help, rich_help_panel="Fields")
            ],
        )
        for field in FIELDS
    ]  # fmt: skip

    def call(*args: Any, **values: Any) -> int | None:  # noqa: ANN401
        fields = {name: values.pop(name, None) for name in FIELD_NAMES}
        return function(*args, given={name: text for name, text in fields.items() if text is not None}, **values)

    call.__doc__ = function.__doc__
    call.__signature__ = signature.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
    return call
