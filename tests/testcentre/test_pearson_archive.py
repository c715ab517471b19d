"""Archives of answers as files: what is read, and what is refused before anything is done. No database."""

from __future__ import annotations

import struct
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rollbook.core.errors import RefusedError
from rollbook.testcentre import answer_archive as pearson

HEADER = "ClientCandidateID\tCandidateID\tStatus\tDate\tMessage"
GOOD = f"{HEADER}\r\nedX1\t7\tAccepted\t2026/01/02 03:04:05\t\r\n"


def pack(folder: Path, *members: tuple[str, str | bytes]) -> Path:
    """Make an archive."""
    path = folder / "answers.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_columns_come_in_any_order_and_the_centres_id_is_optional(tmp_path: Path) -> None:
    path = pack(
        tmp_path,
        ("vcdc-2026-01-02.dat", GOOD),
        ("eac-2026-01-02b.dat", "Message\tDate\tClientAuthorizationID\tClientCandidateID\tStatus\r\n"
         "WARNING: late\t2026/01/02 03:04:06\tedXexam1\tedX1\tAccepted\r\n\r\n"),
    )  # fmt: skip
    first, second = pearson.read_archive(path)
    assert (first.kind, second.kind) == ("cdd", "ead")
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert first.answers == [pearson.Answer(2, "edX1", "Accepted", at, "", 7)]
    assert second.answers == [pearson.Answer(2, "edXexam1", "Accepted", at.replace(second=6), "WARNING: late", None)]


def test_a_byte_order_mark_and_latin_1_are_read(tmp_path: Path) -> None:
    row = "edX1\t7\tError\t2026/01/02 03:04:05\tJosé\r\n"
    path = pack(
        tmp_path,
        ("vcdc-1.dat", f"{HEADER}\r\n{row}".encode("latin-1")),
        ("vcdc-2.dat", f"{HEADER}\r\n{row}".encode("utf-8-sig")),
    )
    assert [member.answers[0].message for member in pearson.read_archive(path)] == ["José", "José"]


@pytest.mark.parametrize(
    ("row", "fault", "remark"),
    [
        ("edX1\t7\tAccepted", "3 fields, the header has 5", ""),
        ("edX1\t7\tAccepted\t2026/01/02 03:04:05\tm\tx", "6 fields, the header has 5", ""),
        ("\t\tError\t2026/01/02 03:04:05\tbad line 7", "Error in CDD file processing (2026/01/02 03:04:05): bad line 7",
         ""),
        ("\t7\tAccepted\t2026/01/02 03:04:05\t", "Encountered bad record:", ""),
        ("edX1\t7\tPerhaps\t2026/01/02 03:04:05\t", 'the status "Perhaps" is neither Accepted nor Error', ""),
        ("edX1\t7\taccepted\t2026/01/02 03:04:05\t", 'the status "accepted" is neither', ""),
        ("edX1\t7\tAccepted\t2026-01-02\t", 'the date "2026-01-02" is not in the format YYYY/MM/DD HH:MM:SS', ""),
        ("edX1\tseven\tAccepted\t2026/01/02 03:04:05\t", "", 'CandidateID "seven" is not a valid number'),
        (f"edX1\t{'9' * 5000}\tAccepted\t2026/01/02 03:04:05\t", "", "is not a valid number and was ignored"),
        ("edX1\t2147483648\tAccepted\t2026/01/02 03:04:05\t", "", "is not a valid number and was ignored"),
    ],
)  # fmt: skip
def test_a_wrong_line_says_why_and_the_others_are_read(tmp_path: Path, row: str, fault: str, remark: str) -> None:
    (member,) = pearson.read_archive(pack(tmp_path, ("vcdc-1.dat", f"{GOOD}{row}\r\n{GOOD.splitlines()[1]}\r\n")))
    good, wrong, last = member.answers
    assert (good.fault, last.fault) == ("", "")
    assert wrong.fault.startswith(fault)
    assert bool(wrong.fault) == bool(fault)
    assert remark in wrong.remark
    assert bool(wrong.remark) == bool(remark)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("vcdc-1.dat", GOOD), ("notes.txt", "")], "Unrecognized confirmation file type"),
        ([("VCDC-1.dat", GOOD)], "Unrecognized confirmation file type"),
        ([("../vcdc-1.dat", GOOD)], "contains a path"),
        ([("in/vcdc-1.dat", GOOD)], "contains a path"),
        ([("vcdc-1.dat/../../x", GOOD)], "contains a path"),
        ([("vcdc-\\x.dat", GOOD)], "contains a path"),
        ([("vcdc-1.dat", "")], "has no column ClientCandidateID"),
        ([("vcdc-1.dat", "ClientCandidateID\tStatus\tMessage\r\n")], "has no column Date"),
        ([("vcdc-1.dat", f"{HEADER}\tStatus\r\n")], "has two column Status"),
        ([("eac-1.dat", GOOD)], "has no column ClientAuthorizationID"),
        ([("vcdc-1.dat", b"\xef\xbb\xbf" + HEADER.encode() + b"\r\n\xff\t\t\t\t\r\n")], "cannot be read"),
    ],
)
def test_a_wrong_member_refuses_the_archive(tmp_path: Path, members: list[tuple[str, str | bytes]], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        pearson.read_archive(pack(tmp_path, *members))


def test_what_is_no_zip_file_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "answers.zip"
    wrong.write_text("hello")
    with pytest.raises(RefusedError, match="Input file is not a zipfile"):
        pearson.read_archive(wrong)
    missing = tmp_path / "missing.zip"
    with pytest.raises(RefusedError) as caught:
        pearson.read_archive(missing)
    assert caught.value.why == f'Input file is not a zipfile: "{missing}"'
    with pytest.raises(RefusedError, match="cannot read"):
        pearson.read_archive(tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="two members"):
        pearson.read_archive(pack(tmp_path, ("vcdc-1.dat", GOOD), ("vcdc-1.dat", GOOD)))


def test_a_damaged_member_packed_otherwise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lzma.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("vcdc-1.dat", GOOD * 50)
    whole = path.read_bytes()
    said = []
    for at in range(45, 75):  # a bit of the header may be damaged without harm
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            pearson.read_archive(path)
        except RefusedError as exc:
            said.append(exc.message)
    assert len(said) > 20
    assert any(message.endswith("damaged, encrypted or uses an unsupported compression") for message in said)


def test_a_damaged_or_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path, ("vcdc-1.dat", GOOD * 50))
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"\xff\xff\xff" + whole[63:])
    with pytest.raises(RefusedError, match="damaged"):
        pearson.read_archive(path)
    directory = whole.index(b"PK\x01\x02")
    path.write_bytes(whole[: directory + 8] + b"\x01\x00" + whole[directory + 10 :])
    with pytest.raises(RefusedError, match="encrypted"):
        pearson.read_archive(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RefusedError, match="not a zipfile"):
        pearson.read_archive(path)


def test_a_bomb_is_refused_by_its_declared_size_and_by_its_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pearson, "MAX_BYTES", 100_000)
    path = pack(tmp_path, ("vcdc-1.dat", b"0" * 60_000), ("vcdc-2.dat", b"0" * 60_000))
    with pytest.raises(RefusedError, match="too large"):
        pearson.read_archive(path)
    # A directory that lies: it declares a byte for a member that unpacks to ten million.
    path = pack(tmp_path, ("vcdc-1.dat", b"0" * 10_000_000))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<L", 10_000_000), struct.pack("<L", 1)))
    with pytest.raises(RefusedError, match=r"too large|damaged|no column"):
        pearson.read_archive(path)
    monkeypatch.setattr(pearson, "MAX_MEMBERS", 1)
    with pytest.raises(RefusedError, match="2 members; the limit is 1"):
        pearson.read_archive(pack(tmp_path, ("vcdc-1.dat", GOOD), ("vcdc-2.dat", GOOD)))


def test_an_empty_archive_holds_nothing(tmp_path: Path) -> None:
    assert pearson.read_archive(pack(tmp_path)) == []
