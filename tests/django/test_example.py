"""examples/django: the first line of its page starts two sites; people log in over HTTP; Ctrl-C leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from tests.program import ROOT

EXAMPLE = ROOT / "examples" / "django"


class Browser:
    """Keeps cookies, and sends the token of the form that it got last."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self.page = self.url = ""

    def open(self, path: str, data: dict[str, str] | None = None) -> str:
        sent = urllib.parse.urlencode(data).encode() if data is not None else None
        with self.opener.open(urllib.parse.urljoin(self.site, path), sent, timeout=60) as answer:
            self.page, self.url = answer.read().decode(), answer.url
        return self.page

    def submit(self, path: str, **fields: str) -> str:
        (token, *_) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', self.page)
        return self.open(path, {"csrfmiddlewaretoken": token, **fields})

    def log_in(self, username: str, password: str) -> str:
        self.open("")
        assert "/accounts/login/" in self.url
        self.submit(self.url, username=username, password="wrong")
        assert "/accounts/login/" in self.url
        return self.submit(self.url, username=username, password=password)


class Started:
    """The example as its page starts it, and what it printed."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        (line, *_) = re.findall(r"^```sh\n(.*)\n", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
        self.process = subprocess.Popen(
            ["sh", "-c", line], cwd=folder, env={**os.environ, "TMPDIR": str(scratch)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.said = ""

    def wait(self) -> None:
        """Read until both sites answer."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.said += line
            if "Ctrl-C" in line:
                break
        assert "Ctrl-C" in self.said, self.said
        self.portal, self.admin, self.course = re.findall(r"http://[\d.:]+/(?:admin/)?", self.said)
        (self.password,) = re.findall(r"password: (.*)", self.said)

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)
        self.said += self.process.communicate(timeout=60)[0]
        assert self.process.returncode in (0, -signal.SIGINT)  # the shell's own end
        assert self.said.endswith("stopped; nothing is left\n"), self.said

    def kill(self) -> None:
        """End it as `kill -9` does: it cannot clean up."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=60)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory for what is temporary, with a blank, short enough for a socket, and open to the server's user."""
    folder = Path("/tmp") / f"rb ex {os.getpid()}"
    folder.mkdir(mode=0o755)
    yield folder
    assert list(folder.iterdir()) == []
    folder.rmdir()


def is_answering(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_sites_start_people_log_in_and_ctrl_c_leaves_nothing(scratch: Path) -> None:
    first = Started(EXAMPLE, scratch)
    second = Started(ROOT, scratch)  # beside the first, and from the root of the checkout
    try:
        first.wait()
        second.wait()
        assert "--command ... --settings" in first.said
        assert len({first.portal, first.course, second.portal, second.course}) == 4
        portal, course, other = Browser(first.portal), Browser(first.course), Browser(second.course)
        assert "edX/DemoX/2012_Fall" in portal.log_in("ada", first.password)
        assert "Site administration" in portal.open(first.admin)
        portal.open("")
        assert "not within the last 120 years" in portal.submit("", name="Ada", year_of_birth="1066")
        portal.submit("", name="Ada Lovelace", year_of_birth="2000")

        # The course's log-in is of the copy; what the course writes stays there, and travels nowhere.
        assert re.search(r"ada, ada@example.org.*Name: Ada Lovelace<", course.log_in("ada", first.password), re.DOTALL)
        assert "Reputation: 1" in course.submit("", text="Dear diary")
        portal.open("/admin/auth/user/1/change/")
        fields = {"username": "ada", "email": "ada@new.org", "is_active": "on", "is_staff": "on", "is_superuser": "on",
                  "date_joined_0": "2026-01-01", "date_joined_1": "10:00:00"}  # fmt: skip
        assert "was changed successfully" in portal.submit("/admin/auth/user/1/change/", **fields)
        assert re.search(r"ada, ada@new.org.*Reputation: 1.*Dear diary", course.open(""), re.DOTALL)
        assert "Reputation: 0" in other.log_in("ada", second.password)
    finally:
        first.interrupt()
        second.interrupt()
    assert not is_answering(first.portal)
    assert not is_answering(first.course)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_after_a_kill_the_sites_end_and_the_next_start_deletes_the_rest(scratch: Path) -> None:
    killed, beside = Started(EXAMPLE, scratch), Started(EXAMPLE, scratch)
    try:
        killed.wait()
        beside.wait()
    finally:
        killed.kill()
    try:
        for url in (killed.portal, killed.course):
            ends = time.monotonic() + 30
            while is_answering(url):
                assert time.monotonic() < ends, f"{url} still answers"
                time.sleep(0.1)
        left = set(scratch.glob("rb-django-*"))
        postmasters = {home: Path(f"/proc/{(home / 'pg/data/postmaster.pid').read_text().split()[0]}") for home in left}
        assert len(left) == 2
        after = Started(EXAMPLE, scratch)
        try:
            after.wait()
            (removed,) = left - set(scratch.glob("rb-django-*"))
            assert str(removed) in after.said
            assert [home for home, process in postmasters.items() if not process.exists()] == [removed]
            assert is_answering(beside.portal)
        finally:
            after.interrupt()
    finally:
        beside.interrupt()
