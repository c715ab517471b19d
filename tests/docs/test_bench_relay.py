"""`python -m tests.bench.relay`, whose figures are in docs/sizing.md: its help, and that it leaves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.relay import MEASURES

ROOT = Path(__file__).resolve().parents[2]
BENCH = [sys.executable, "-m", "tests.bench.relay"]


@pytest.mark.slow
def test_help_has_the_measures_and_every_setting_and_an_unknown_word_is_2() -> None:
    asked = subprocess.run([*BENCH, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    source = (ROOT / "tests/bench/relay.py").read_text()
    settings = {word.partition('"')[0] for word in source.split('environ.get("')[1:]} | {"BENCH_SAMPLES"}
    for word in (*MEASURES, *settings):
        assert f"  {word}" in asked.stdout, word
    wrong = subprocess.run([*BENCH, "hop"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == f"there is no measure hop\n\n{asked.stdout}"


@pytest.mark.slow
def test_a_run_that_is_killed_removes_its_clusters() -> None:
    script = """
import contextlib, sys, time
from tests.bench import relay

@contextlib.contextmanager
def clusters(*names):
    try:
        yield [None]
    finally:
        print("removed", flush=True)

def wait(bench):
    print("begun", flush=True)
    time.sleep(60)

relay.clusters, relay.MEASURES = clusters, {"wait": wait}
relay.main(["wait"])
"""
    for number in (signal.SIGTERM, signal.SIGHUP):
        with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == "begun\n"
            run.send_signal(number)
            assert (run.stdout.read(), run.wait(30)) == ("removed\n", 128 + number)
