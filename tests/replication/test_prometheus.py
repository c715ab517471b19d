"""A real Prometheus scrapes `rollbook metrics --listen`: it answers each query of the dashboard and of the alert rules.

Debian's programs prometheus and promtool; skipped where they are missing. `.ci/run` fetches them.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from rollbook.system.metrics import FAMILIES
from tests.program import KEEP, KEEP_SCHEMA
from tests.replication.conftest import Site, until
from tests.replication.test_metrics import listening

GRAFANA = Path(__file__).parents[2] / "packaging" / "grafana"
RULES = GRAFANA / "rollbook.rules.yml"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("promtool")),
        reason="prometheus is not installed (Debian: apt install prometheus)",
    ),
]

# What this site has none of: nothing differs, waits or failed when a query is asked.
MAY_BE_EMPTY = re.compile(
    r"slot_safe_bytes|oldest_pending_timestamp|last_export|rows_differing.* > 0|success == 0|state!=\"ok\",course"
)


class Prometheus:
    """A Prometheus server, by its HTTP interface."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer; a query that Prometheus refuses fails the test with its words."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{parameters}: {exc.read().decode()}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        found: list[dict[str, Any]] = self.ask("/api/v1/query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float | None:
        """The only value of an expression, None for none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def rules(self) -> list[dict[str, Any]]:
        """The alert rules, with their health."""
        return [rule for group in self.ask("/api/v1/rules")["groups"] for rule in group["rules"]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def scraping(url: str, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes this URL each second, with the rules that ship."""
    port = free_port()
    target = urllib.parse.urlsplit(url).netloc
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{RULES}']\n"
        f"scrape_configs: [{{job_name: rollbook, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    for what, file in (("config", config), ("rules", RULES)):
        done = subprocess.run(["promtool", "check", what, str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        found = Prometheus(port)

        def scrapes() -> bool:
            with suppress(OSError, AssertionError):  # it is starting
                return found.value("rollbook_up") is not None
            return False

        try:
            until(scrapes, 30)
            yield found
        finally:
            process.terminate()


def expressions() -> dict[str, str]:
    """The queries of the dashboard: title of the panel and letter -> expression, with its variables filled in."""
    panels = json.loads((GRAFANA / "rollbook.json").read_text())["panels"]
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$course", ".*")
        for panel in panels
        for target in panel["targets"]
    }


def test_prometheus_answers_every_query_of_the_dashboard_and_the_alerts_fire(shared: Site, tmp_path: Path) -> None:
    shared.ok("replication", "verify")
    with listening(shared) as (url, _), scraping(url, tmp_path) as prometheus:
        assert prometheus.value("rollbook_up") == 1
        assert prometheus.value('sum(rollbook_courses{state="ok"})') == 2
        until(lambda: (prometheus.value("count_over_time(rollbook_up[1m])") or 0) >= 3, 30)  # a rate needs two of each
        queries = expressions()
        answers = {title: prometheus.query(query) for title, query in queries.items()}
        empty = {title for title, found in answers.items() if not found and not MAY_BE_EMPTY.search(queries[title])}
        assert empty == set()
        asked = " ".join([*queries.values(), *(rule["query"] for rule in prometheus.rules())])
        assert [name for name in FAMILIES if name not in asked and name != "rollbook_replication_pending_changes"] == []
        assert set(re.findall(r"rollbook_\w+", asked)) - set(FAMILIES) == set()

        # A drifted course and routing that is off: the alerts that are for them wait for their time, the others do not.
        shared.as_worker(f"update {KEEP_SCHEMA}.auth_user set first_name = 'drift' where id = 101")
        shared.run("replication", "verify")
        shared.portal.execute("alter table portal.auth_user disable trigger rollbook_route_user_update")
        until(lambda: prometheus.value("rollbook_routing_faults") == 1, 20)
        drifted = f'rollbook_course_state{{state="drifted",course="{KEEP}"}}'
        until(lambda: prometheus.value(drifted) == 1, 20)
        (row, *_) = prometheus.query(queries["Courses that are not ok A"])
        assert (row["metric"]["course"], row["metric"]["target"]) == (KEEP, "server east")
        due = {"RollbookRoutingOff", "RollbookCourseDrifted", "RollbookCourseUnknown"}  # of the other course
        until(lambda: {rule["name"] for rule in prometheus.rules() if rule["state"] != "inactive"} == due, 20)
        assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
        shared.portal.execute("alter table portal.auth_user enable trigger rollbook_route_user_update")
        shared.ok("replication", "repair", "--yes")
