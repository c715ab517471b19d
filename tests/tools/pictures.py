"""Draw docs/pictures/status.svg, what `rollbook status` prints in a damaged demo: python -m tests.tools.pictures.

The other pictures there are written by hand: they are text.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pexpect
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "status.svg"
PROGRAM = Path(sys.executable).parent / "rollbook"
WIDTH = 106
# Rich's own frame loads a font from the net.
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 WIDTH HEIGHT" role="img">
<title>rollbook status: one of five courses has drifted, and the command that repairs it</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 20px; }}
{styles}
</style>
<rect width="100%" height="100%" rx="10" fill="#1b1f24"/>
<g transform="translate(14, 10)" class="{unique_id}-matrix">
{matrix}
</g>
</svg>
"""
COLOURS = TerminalTheme(
    (27, 31, 36),
    (214, 219, 226),
    [(70, 76, 84), (255, 123, 114), (126, 231, 135), (242, 204, 96), (121, 192, 255), (210, 168, 255), (118, 227, 234),
     (214, 219, 226)],
)  # fmt: skip


def status(environment: Mapping[str, str]) -> str:
    """Damage the demo of an environment, verify it, and return what `rollbook status` prints on a terminal."""
    for command, code in ((("demo", "break"), 0), (("replication", "verify"), 4)):
        done = subprocess.run([PROGRAM, *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != code:
            raise RuntimeError(done.stderr)
    shell = f"sh -c {shlex.quote(f'{shlex.quote(str(PROGRAM))} status 2> {os.devnull}')}"
    for _ in range(5):  # on a busy machine a heartbeat may take more than a second
        shown: str = pexpect.run(shell, env=environment, dimensions=(50, WIDTH), encoding="utf-8")
        if "lagging" not in shown:
            break
    return shown.replace("\r", "").strip("\n")


def shape(text: str) -> list[str]:
    """Return the lines of a status without what differs from one run to the next: times, sizes, versions, blanks."""
    passing = r"\d{4}-\d\d-\d\d \d\d:\d\d|[\d.]+ (?:s|min|ms|B|kB)\b|(?<=PostgreSQL )[\d.]+|\S*…\S*"
    plain = re.sub(r"\x1b\[[\d;]*m", "", text).replace("\xa0", " ")
    return [short for line in re.sub(passing, "#", plain).splitlines() if (short := re.sub(r"\s+", "", line))]


def drawn() -> str:
    """Return the text of the picture, without the line of the command."""
    lines: dict[float, str] = defaultdict(str)
    for element in ET.parse(PICTURE).iter("{http://www.w3.org/2000/svg}text"):
        lines[float(element.attrib["y"])] += element.text or ""
    return "\n".join(text for _, text in sorted(lines.items())[1:])


def draw(text: str) -> str:
    """Return a status as SVG: legible on light and dark pages, as its ground is its own."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(Text.from_ansi(f"$ rollbook status\n{text}"))
    size = WIDTH * 12.2 + 28, (len(text.splitlines()) + 1) * 24.4 + 24  # Rich's cell is 12.2 by 24.4
    frame = FRAME.replace("WIDTH", f"{size[0]:.0f}").replace("HEIGHT", f"{size[1]:.0f}")
    picture = console.export_svg(title="", theme=COLOURS, code_format=frame, unique_id="status")
    picture = re.sub(r"(?:<text [^>]*>\n</text>)+", "\n", picture.replace("&#160;", "\xa0"))
    return re.sub(r' clip-path="[^"]*"', "", picture)


def main() -> None:
    """Start a demo, draw its status, remove it."""
    with tempfile.TemporaryDirectory(prefix="rbp", dir="/tmp") as nest:
        Path(nest).chmod(0o755)  # root's PostgreSQL runs as somebody else
        home = f"{nest}/d"
        environment = {
            **os.environ, "ROLLBOOK_DEMO_DIR": home, "TERM": "xterm-256color",
            "ROLLBOOK_DSN": f"host={home} port=5432 dbname=portal user=postgres",
        }  # fmt: skip
        subprocess.run([PROGRAM, "demo", "up"], env=environment, stdout=subprocess.DEVNULL, check=True)
        try:
            PICTURE.write_text(draw(status(environment)))
        finally:
            subprocess.run([PROGRAM, "demo", "down"], env=environment, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
