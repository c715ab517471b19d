"""A simulated test centre: reads the files that it is sent, and answers with archives as Pearson does."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

Record = dict[str, str]
Verdict = tuple[str, str]  # Accepted or Error, and a message

ACCEPTED: Verdict = ("Accepted", "")
# What is read -> the prefix of the answer, our id, the centre's id, and the centre's first number.
FORMS = {
    "cdd": ("vcdc", "ClientCandidateID", "CandidateID", 7_000_000),
    "ead": ("eac", "ClientAuthorizationID", "AuthorizationID", 8_000_000),
}


def read(path: Path) -> list[Record]:
    """Return the records of a file that was sent."""
    with path.open(encoding="iso-8859-1", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def strict(record: Record) -> Verdict:
    """Judge a record as Pearson would: an Update of what it does not know, or no telephone number, is an error."""
    if record.get("Phone") and not any(character.isdigit() for character in record["Phone"]):
        return "Error", "Phone: no digits"
    if record.get("EligibilityApptDateFirst", "2100/01/01") < "2000/01/01":
        return "Error", "EligibilityApptDateFirst: in the past"
    if record.get("Suffix"):
        return "Accepted", "WARNING: the suffix is not printed"
    return ACCEPTED


class Centre:
    """A test centre. It gives each id a number of its own the first time that it accepts it."""

    def __init__(self, judge: Callable[[Record], Verdict] = strict) -> None:
        self.judge = judge
        self.numbers: dict[str, int] = {}

    def answer(self, sent: Iterable[Path], archive: Path, at: datetime) -> Path:
        """Answer files in one archive, with the time at which they are handled."""
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sent:
                kind = path.name[:3]
                prefix, key, number, first = FORMS[kind]
                text = io.StringIO()
                writer = csv.writer(text, delimiter="\t", lineterminator="\r\n")
                writer.writerow([key, number, "Status", "Date", "Message"])
                for record in read(path):
                    status, message = self.judge(record)
                    known = self.numbers.get(record[key])
                    if status == "Accepted" and known is None:
                        known = self.numbers[record[key]] = first + len(self.numbers) + 1
                    date = at.astimezone(UTC).strftime("%Y/%m/%d %H:%M:%S")
                    writer.writerow([record[key], known or "", status, date, message])
                packed.writestr(f"{prefix}-{path.stem[4:]}.dat", text.getvalue().encode("iso-8859-1"))
        return archive
