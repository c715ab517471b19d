"""The exams in a course policy: `testcenter_info`, a JSON object of exam name -> definition."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rollbook.core.errors import RefusedError, UsageError

KEY = "testcenter_info"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = "First_Eligible_Appointment_Date", "Last_Eligible_Appointment_Date"
START, END = "Registration_Start_Date", "Registration_End_Date"
CODE_WIDTH = 15


def exams(text: str) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[str]]:
    """Return the exams as rows of rollbook.exam, the faults (exam, problem), and remarks on ignored dates.

    Only the first fault of an exam is reported. Raises RefusedError if the text is not a policy.
    """
    good: list[dict[str, Any]] = []
    faults: list[dict[str, str]] = []
    remarks: list[str] = []
    seen: dict[str, str] = {}
    for name, definition in definitions(text).items():
        row, problem = read(name, definition, remarks)
        code = row["exam_series_code"]
        if problem is None and code in seen:
            problem = f"Exam_Series_Code {code} is also that of exam {seen[code]}"
        if problem is not None:
            faults.append({"exam": name, "problem": problem})
            continue
        seen[code] = name
        good.append({key: str(value) if isinstance(value, datetime) else value for key, value in row.items()})
    return good, faults, remarks


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises RefusedError for a repeated key: one value would be lost."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise RefusedError(f"the file has {repeated!r} twice in one object", fix="remove one of them")
    return content


def definitions(text: str) -> dict[str, Any]:
    """Return exam name -> definition, from a policy or from a policy file with one policy under the name of a run."""
    try:
        content = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as exc:
        raise RefusedError("the file is not JSON", why=str(exc), fix="name the policy.json of a course") from exc
    within = content.values() if isinstance(content, dict) and KEY not in content else [content]
    found = [part[KEY] for part in within if isinstance(part, dict) and KEY in part]
    if len(found) != 1 or not isinstance(found[0], dict):
        raise RefusedError(
            f"the file has no {KEY}" if not found else f"{KEY} is not an object of exams, or occurs more than once",
            fix=f'write it as {{"{KEY}": {{"NAME": {{"{FIRST}": "2013-01-25T00:00", ...}}}}}}',
        )
    exams_of: dict[str, Any] = found[0]
    return exams_of


def read(name: str, definition: Any, remarks: list[str]) -> tuple[dict[str, Any], str | None]:  # noqa: ANN401
    """Return one exam as a row, and its first fault."""
    given = definition if isinstance(definition, dict) else {}
    times = {key: moment(name, key, given.get(key), remarks) for key in (FIRST, LAST, START, END)}
    first, last = times[FIRST], times[LAST]
    start = times[START] or EPOCH
    end = times[END] or last
    code = given.get("Exam_Series_Code", name)
    code = code.strip() if isinstance(code, str) else code
    title = given.get("Exam_Display_Name", code)
    row = {
        "exam_series_code": code, "name": name, "display_name": title, "first_appointment": first,
        "last_appointment": last, "registration_start": start, "registration_end": end,
    }  # fmt: skip
    if not isinstance(definition, dict):
        return row, "the definition is not a JSON object"
    for key, value in (("Exam_Series_Code", code), ("Exam_Display_Name", title), ("The name", name)):
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            return row | {"exam_series_code": str(code)}, f"{key} must be text without control characters"
    if len(code) > CODE_WIDTH:
        return row, f"Exam_Series_Code {code} has {len(code)} characters; the limit is {CODE_WIDTH}"
    if not code.isascii() and any(ord(character) > 255 for character in code):
        return row, "Must only use characters in Latin-1 (iso-8859-1) encoding"
    return row, order_fault(first, last, start, end)


def order_fault(first: datetime | None, last: datetime | None, start: datetime, end: datetime | None) -> str | None:
    """Return the first broken rule on the dates; equal dates are in order."""
    if first is None:
        return "First appointment date must be specified"
    if last is None or end is None:
        return "Last appointment date must be specified"
    if start > end:
        return "Registration start date must be before registration end date"
    if first > last:
        return "First appointment date must be before last appointment date"
    if end > last:
        return "Registration end date must be before last appointment date"
    return None


def moment(name: str, key: str, value: Any, remarks: list[str]) -> datetime | None:  # noqa: ANN401
    """Return a time in UTC, written as 2013-01-25T00:00. An invalid one is ignored, with a remark."""
    if value is None:
        return None
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M").replace(tzinfo=UTC)
    except (TypeError, ValueError):
        remarks.append(f"{name}: {key} {value!r} is not a time such as 2013-01-25T00:00 and is ignored")
        return None


def text_of(path: str) -> str:
    """Return the text of a policy file; `-` is stdin. Raises UsageError."""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig") if path == "-" else Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read {path}", why=str(exc), fix="name a JSON file in UTF-8, or - for stdin") from exc
