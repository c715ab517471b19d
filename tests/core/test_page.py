"""`--html`: a page that a browser shows without a network, that prints, and in which a name is never markup."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from tests.program import KEEP, damage
from tests.school import Rollbook

HOSTILE = '<script>document.title="owned"</script>"onload="alert(2)/&amp;\u202e'
SHOWN = HOSTILE.replace("\u202e", "\\u202e")
CHROMIUM = shutil.which("chromium")
SILENT = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run", "--hide-scrollbars",
          "--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND")  # fmt: skip


class Reader(HTMLParser):
    """What a page shows: the cells of its tables by row, its tags, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.rows.append([])


@pytest.fixture
def hostile(school: Connection[Any]) -> Connection[Any]:
    """A damaged platform with a course whose name is markup."""
    damage(school)
    school.execute("select rollbook.create_course(%s)", [HOSTILE])
    return school


def test_a_page_has_the_rows_and_words_of_the_terminal_and_the_same_exit_code(
    rollbook: Rollbook, hostile: Connection[Any], tmp_path: Path
) -> None:
    file = tmp_path / "status.html"
    assert rollbook("replication", "verify").code == 4
    once = rollbook("status", "--json")
    answer = rollbook("status", "--html", str(file))
    assert (answer.code, answer.out, answer.err, oct(file.stat().st_mode)[-3:]) == (once.code, "", "", "600")
    seen = Reader(file.read_text())
    head, *rows = [row for row in seen.rows if row]
    assert head == ["COURSE", "STATE", "LAG", "LAG TIME", "VERIFIED", "VERDICT", "TARGET"]
    assert [(row[0], row[1]) for row in rows] == [
        (each["course"].replace("\u202e", "\\u202e"), {"ok": "✓ ok", "drifted": "✗ drifted"}[each["state"]])
        for each in once.data["courses"]
    ]
    assert ("script" in seen.tags, seen.links) == (False, [])
    assert "rollbook replication repair" in seen.text
    assert hostile.info.dbname in seen.text
    assert re.search(r"<title>.*: status · \d{4}-\d\d-\d\d \d\d:\d\d UTC</title>", file.read_text())

    answer = rollbook("replication", "verify", "--html", "-")
    seen = Reader(answer.out)
    tables = [row for row in seen.rows if row]
    assert (answer.code, answer.err) == (4, "")
    assert tables[0] == ["COURSE", "TABLE", "FINDING", "ROW ID", "COLUMNS"]
    assert next(row[:2] for row in tables if row[-1] == "✗ differs") == [KEEP, "auth_user"]
    assert "3 courses compared; 1 differs in 3 rows." in seen.text
    assert SHOWN in {row[0] for row in tables}
    assert rollbook("replication", "verify", "--rows", "--html", "-", "--fields", "course,verdict").code == 4
    for options in ("--json", "--csv", "--format tsv", "-o x.csv", "--watch 1"):
        refused = rollbook("status", "--html", str(file), *options.split())
        assert (refused.code, "exclude each other" in refused.err) == (2, True), options
    assert rollbook("replication", "verify", "--user", "ada", "--html", "-").code == 2
    assert rollbook("status", "--html", str(tmp_path / "none" / "x.html")).code == 2


def test_an_empty_portal_has_a_page_too(rollbook: Rollbook, empty: str) -> None:
    assert empty
    for command in ("status", "replication verify"):
        answer = rollbook(*command.split(), "--html", "-")
        assert (answer.code, answer.out[:15], answer.out.count("<table>")) == (0, "<!doctype html>", 0)


def browser(*options: str, home: Path) -> str:
    """Run the browser without a network; return what it prints."""
    assert CHROMIUM
    done = subprocess.run(
        [CHROMIUM, *SILENT, f"--user-data-dir={home}", *options],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")
def test_a_browser_without_a_network_shows_the_page_and_prints_it(
    rollbook: Rollbook, hostile: Connection[Any], tmp_path: Path
) -> None:
    hostile.execute("update portal.student_courseenrollment set created = now() - random() * interval '30 days'")
    home, pages = tmp_path / "home", {}
    for name, command in (("verify", "replication verify"), ("status", "status")):
        pages[name] = tmp_path / f"{name}.html"
        assert rollbook(*command.split(), "--html", str(pages[name])).code == 4
    status, shot, paper = pages["status"].as_uri(), tmp_path / "status.png", tmp_path / "status.pdf"
    dom = browser("--dump-dom", pages["verify"].as_uri(), home=home)
    seen = Reader(dom)
    assert {KEEP, SHOWN} <= {row[0] for row in seen.rows if row}
    assert ("script" in seen.tags, "<title>owned" in dom, seen.tags.count("rect") > 2) == (False, False, True)
    browser("--window-size=1280,1600", f"--screenshot={shot}", status, home=home)
    assert struct.unpack(">II", shot.read_bytes()[16:24]) == (1280, 1600)
    assert shot.stat().st_size > 20_000  # not blank
    browser(f"--print-to-pdf={paper}", status, home=home)
    assert paper.read_bytes()[:5] == b"%PDF-"
    # Nothing is wider than a narrow window: a script may measure it once the policy of the page is removed.
    loud = re.sub(r"<meta http-equiv=.*\n", "", pages["status"].read_text())
    measure = "<script>document.title = `wide ${document.documentElement.scrollWidth}`</script></body>"
    (tmp_path / "measured.html").write_text(loud.replace("</body>", measure))
    dom = browser("--window-size=500,900", "--dump-dom", (tmp_path / "measured.html").as_uri(), home=home)
    seen = Reader(dom)
    assert {KEEP, SHOWN} <= {row[0] for row in seen.rows if row}
    assert ("<title>wide 500</title>" in dom, seen.tags.count("script"), seen.tags.count("rect") > 90) == (
        True,
        1,
        True,
    )
