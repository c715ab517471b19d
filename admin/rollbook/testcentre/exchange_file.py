"""The exchange files of Pearson VUE: their columns and their form, and the files that go out.

CDD (candidates) and EAD (authorizations) go out, VCDC and EAC come back (answer_archive.py). All are tab-separated
lines in Latin-1. Nothing here knows the database.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rollbook.core.errors import RefusedError
from rollbook.core.files import Aside, remove_leftovers

Kind = Literal["cdd", "ead"]

ENCODING = "iso-8859-1"


# --- columns ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A field of a candidate's record: its name here and in a CDD file, its width in characters."""

    name: str
    column: str
    width: int
    about: str
    required: bool = False

    @property
    def help(self) -> str:
        """Return one line of help, with the width."""
        return f"{self.about}; at most {self.width} characters."


# What a candidate provides, in the order of the form. The database checks the same widths (candidate_faults).
FIELDS = (
    Field("first_name", "FirstName", 30, "Given name as on the identity document", required=True),
    Field("middle_name", "MiddleName", 30, "Middle name"),
    Field("last_name", "LastName", 50, "Family name as on the identity document", required=True),
    Field("suffix", "Suffix", 255, "Name suffix, such as Jr."),
    Field("salutation", "Salutation", 50, "Form of address, such as Dr."),
    Field("address_1", "Address1", 40, "Street address, line 1", required=True),
    Field("address_2", "Address2", 40, "Street address, line 2"),
    Field("address_3", "Address3", 40, "Street address, line 3"),
    Field("city", "City", 32, "City or town", required=True),
    Field("state", "State", 20, "State or province, required in USA and CAN"),
    Field("postal_code", "PostalCode", 16, "Postal code, required in USA and CAN"),
    Field("country", "Country", 3, "ISO 3166-1 alpha-3 code, such as USA", required=True),
    Field("phone", "Phone", 35, "Telephone number without country code", required=True),
    Field("extension", "Extension", 8, "Telephone extension"),
    Field("phone_country_code", "PhoneCountryCode", 3, "Country calling code of the telephone", required=True),
    Field("fax", "FAX", 35, "Fax number without country code"),
    Field("fax_country_code", "FAXCountryCode", 3, "Country calling code of the fax, required with a fax"),
    Field("company_name", "CompanyName", 50, "Employer"),
)
FIELD_NAMES = tuple(field.name for field in FIELDS)
EMAIL = Field("email", "Email", 254, "The account's e-mail address")
_FIRST, _MIDDLE, _LAST, _SUFFIX, _SALUTATION, *_OTHERS = FIELDS

# The columns of each file in its order -> their source: the name of what the query of the export selects.
COLUMNS: dict[Kind, dict[str, str]] = {
    "cdd": {
        "ClientCandidateID": "client_candidate_id",
        **{f.column: f.name for f in (_FIRST, _LAST, _MIDDLE, _SUFFIX, _SALUTATION, EMAIL, *_OTHERS)},
        "LastUpdate": "last_update",
    },
    "ead": {
        "AuthorizationTransactionType": "transaction_type",
        "AuthorizationID": "authorization_id",
        "ClientAuthorizationID": "client_authorization_id",
        "ClientCandidateID": "client_candidate_id",
        "ExamAuthorizationCount": "exam_authorization_count",
        "ExamSeriesCode": "exam_series_code",
        "Accommodations": "accommodations",
        "EligibilityApptDateFirst": "first_day",
        "EligibilityApptDateLast": "last_day",
        "LastUpdate": "last_update",
    },
}
# The column of our id, in a file that goes out and in its answer.
KEY: dict[Kind, str] = {"cdd": "ClientCandidateID", "ead": "ClientAuthorizationID"}


# --- files that go out ------------------------------------------------------------------------------------------------


class Outgoing:
    """A file that is written under a hidden name, flushed to disk, and renamed at the end.

    Of two programs that choose the same name, the second takes the next one. What a killed program left is removed.
    """

    def __init__(self, directory: Path, kind: Kind, at: datetime, taken: set[str]) -> None:
        self.directory = directory
        self.kind: Kind = kind
        try:
            directory.mkdir(parents=True, exist_ok=True)
            remove_leftovers(directory, f".{kind}-*.dat.part")
            self.name, self._aside = self._open(at, taken)
        except OSError as exc:
            raise RefusedError(
                f"cannot write into {directory}", why=exc.strerror, fix="name a writable directory with -o"
            ) from exc
        self._hash = hashlib.sha256()

    def _open(self, at: datetime, taken: set[str]) -> tuple[str, Aside]:
        for number in range(1, 10_000):
            name = file_name(self.kind, at, number)
            if name in taken or (self.directory / name).exists():
                continue
            try:
                aside = Aside(self.directory / f".{name}.part")
            except FileExistsError:
                continue
            if (self.directory / name).exists():  # another writer published it after the first check
                aside.discard()
                continue
            return name, aside
        raise RefusedError(
            f"{self.directory} already has ten thousand {self.kind} files of this second",
            fix="export again in a second",
        )

    def write(self, line: bytes) -> None:
        """Append bytes."""
        self._hash.update(line)
        self._aside.file.write(line)

    def flush(self) -> str:
        """Flush the content to disk, still under the hidden name; return its SHA-256."""
        self._aside.flush()
        return self._hash.hexdigest()

    def publish(self) -> Path:
        """Rename the file to its final name and flush the directory."""
        path = self.directory / self.name
        self._aside.publish(path)
        return path

    def discard(self) -> None:
        """Remove the hidden file, if it was not published."""
        self._aside.discard()


def file_name(kind: Kind, at: datetime, number: int = 1) -> str:
    """Return `cdd-YYYYMMDD-HHMMSS.dat` in UTC; the second file of one second ends in `-2.dat`."""
    more = "" if number == 1 else f"-{number}"
    return f"{kind}-{at.astimezone(UTC):%Y%m%d-%H%M%S}{more}.dat"


def line(copied: bytes | bytearray | memoryview) -> bytes:
    """Convert a line of PostgreSQL's COPY (CSV, UTF-8, LF) to Latin-1 and CR LF.

    A line feed inside a quoted value stays. Raises UnicodeEncodeError.
    """
    text = bytes(copied)
    if text.isascii():
        return text[:-1] + b"\r\n"
    return text[:-1].decode().encode(ENCODING) + b"\r\n"


def values(header: bytes, copied: bytes) -> dict[str, str]:
    """Return a record's values by column."""
    return dict(zip(*csv.reader([header.decode(), copied.decode()], delimiter="\t"), strict=True))
