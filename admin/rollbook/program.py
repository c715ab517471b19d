"""The entry point: Ctrl-C while the program is still being loaded ends it without a traceback."""

import signal
import sys


def main() -> None:
    """Load the program and run it."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from rollbook import cli
    from rollbook.core.errors import INTERRUPTED

    try:
        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        cli.main()
    except KeyboardInterrupt:  # in the moments before and after the command
        sys.exit(INTERRUPTED)
