"""The columns of an account that people fill in, each named once.

Options, CSV columns, select lists, inserts and updates are composed from here. `username`, `email`, `meta` and the
flags are not here: each has rules of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString


@dataclass(frozen=True)
class Field:
    """A column of portal.auth_user or portal.auth_userprofile.

    `width` is in characters. `empty` is the value of a field that was cleared or never given; None is NULL. `initial`
    is the value of a new account, where that is another one.
    """

    name: LiteralString
    label: LiteralString
    help: str = ""
    type: LiteralString = "text"
    width: int | None = None
    choices: tuple[LiteralString, ...] = ()
    empty: LiteralString | None = None
    initial: LiteralString | None = None
    in_files: bool = True

    @property
    def option(self) -> str:
        """Return the name of the command-line option, without dashes in front."""
        return self.name.replace("_", "-")


GENDERS = ("m", "f", "o")
EDUCATIONS = ("p_se", "p_oth", "m", "b", "hs", "jhs", "el", "none", "other")

# In the order of `user import` and `user export`.
USER_FIELDS = (
    Field("first_name", "first name", width=150, empty=""),
    Field("last_name", "last name", width=150, empty=""),
)
PROFILE_FIELDS = (
    Field("name", "full name", "The full name; the previous one is kept in the meta.", width=255, empty=""),
    Field("gender", "gender", choices=GENDERS),
    Field("level_of_education", "level of education", choices=EDUCATIONS),
    Field("year_of_birth", "year of birth", "Within the last 120 years.", type="integer"),
    Field("mailing_address", "mailing address"),
    Field("goals", "goals"),
    Field("language", "language", width=255, empty=""),
    Field("location", "location", width=255, empty=""),
    Field("courseware", "courseware", "The course file of the platform.", width=255, empty="", initial="course.xml",
          in_files=False),
)  # fmt: skip
FIELDS = USER_FIELDS + PROFILE_FIELDS
FILE_FIELDS = tuple(field for field in FIELDS if field.in_files)

WIDTHS = {"username": 150, "email": 254} | {field.name: field.width for field in FIELDS if field.width is not None}


def names(fields: tuple[Field, ...]) -> tuple[str, ...]:
    """Return the names of fields."""
    return tuple(field.name for field in fields)
