"""The site builds; a browser without the net shows its pages whole, on a desk and a telephone, and searches it."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.tools.site import BUILD, ROOT, documents, place

pytestmark = pytest.mark.slow
SITE = BUILD / "site"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = [f"/{place(path).with_suffix('.html')}".replace("README.html", "index.html") for path in documents()]
FRAMES = [(page, 400) for page in PAGES] + [(page, 1280) for page in ("/index.html", "/design.html", "/dba.html")]
# Each page in a frame as wide as a telephone, some as wide as a desk; then a search. What was seen comes back by POST.
HARNESS = """
<iframe id="frame" height="900" style="border: 0"></iframe>
<script>
const frame = document.getElementById("frame"), seen = [];
const load = (page, width) => new Promise(done => {
    frame.width = width; frame.onload = done; frame.src = page;
});
const pause = ms => new Promise(done => setTimeout(done, ms));
(async () => {
    for (const [page, width] of FRAMES) {
        await load(page, width);
        const shown = frame.contentDocument;
        const elsewhere = frame.contentWindow.performance.getEntriesByType("resource")
            .map(entry => entry.name).filter(name => !name.startsWith(location.origin));
        seen.push({page, width, elsewhere, title: shown.querySelector("h1")?.innerText.replace("\\u00b6", "").trim(),
            overflow: shown.documentElement.scrollWidth - width,
            broken: [...shown.images].filter(image => !image.naturalWidth).map(image => image.src)});
    }
    await load("/index.html", 1280);
    let found = [];
    const shown = frame.contentDocument;
    shown.querySelector("button").click();
    for (let tries = 0; tries < 100 && !found.length; tries++) {
        await pause(100);
        const field = [...shown.querySelectorAll("*")]
            .map(each => each.shadowRoot?.querySelector("input")).find(each => each);
        if (field && field.value !== "trust zone") {
            field.value = "trust zone";
            field.dispatchEvent(new Event("input", {bubbles: true, composed: true}));
        }
        found = [...field?.getRootNode().querySelectorAll("a") ?? []].map(each => each.href);
    }
    await fetch("/seen", {method: "POST", body: JSON.stringify({seen, found})});
})();
</script>
"""


class Handler(SimpleHTTPRequestHandler):
    """Serves the site and the harness, and takes what was seen."""

    answer: dict[str, Any] = {}  # noqa: RUF012
    is_done = threading.Event()

    def do_GET(self) -> None:
        if self.path != "/harness":
            super().do_GET()
            return
        page = HARNESS.replace("FRAMES", json.dumps(FRAMES)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html>" + page)

    def do_POST(self) -> None:
        Handler.answer = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        Handler.is_done.set()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def build() -> None:
    """Build the site as `make docs` does."""
    packages = subprocess.run(["make", ".venv-docs/ready"], cwd=ROOT, capture_output=True, text=True, check=False)
    if packages.returncode:
        pytest.skip(f"the packages of requirements-docs.lock cannot be had: {packages.stderr.strip()[-200:]}")
    built = subprocess.run(["make", "docs"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (built.returncode, "No issues found" in built.stdout + built.stderr) == (0, True), (
        built.stdout + built.stderr
    )


def look(profile: Path) -> dict[str, Any]:
    """Return what a browser that reaches this machine alone sees of the site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", "--disable-background-networking",
            "--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]  # fmt: skip
        url = f"http://127.0.0.1:{server.server_port}/harness"
        command = [str(BROWSER), *options, url]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            try:
                assert Handler.is_done.wait(200), "the browser did not finish"
            finally:
                browser.terminate()
        server.shutdown()
    return Handler.answer


def test_the_site_is_whole_and_searched_without_the_net(tmp_path: Path) -> None:
    """One test: two workers would build in the same place."""
    build()
    loads = re.compile(r"<(?:script|img|link|iframe|source)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^\" >]*")
    assert [found for page in SITE.rglob("*.html") for found in loads.findall(page.read_text())] == []
    if BROWSER is None:
        pytest.skip("the site builds, and was not looked at: chromium is not installed (Debian: apt install chromium)")
    answer = look(tmp_path)
    seen, found = answer["seen"], answer["found"]
    assert len(seen) == len(FRAMES)
    assert [
        each for each in seen if not each["title"] or each["elsewhere"] or each["broken"] or each["overflow"] > 0
    ] == []
    assert any("relay.html" in href or "glossary.html" in href for href in found), found
