"""Files that are written: beside their final name, for the user alone, on disk before they get that name."""

from __future__ import annotations

import errno
import fcntl
import glob
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rollbook.core.errors import UnreachableError, UsageError

CHUNK = 1024 * 1024


def way_out(exc: OSError, option: str) -> str:
    """Return what to do where writing fails; `option` names the file."""
    other = f"name another file with {option}"
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space, or {other}"
    return f"raise the limit of a file's size (ulimit -f), or {other}" if exc.errno == errno.EFBIG else other


class Aside:
    """A file under a hidden name, which is created exclusively and locked while its writer lives."""

    def __init__(self, hidden: Path, mode: int = 0o600) -> None:
        """Create the hidden file. Raises OSError, FileExistsError where another writer has this name."""
        self.hidden = hidden
        descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.fchmod(descriptor, mode)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.file: IO[bytes] = os.fdopen(descriptor, "wb", CHUNK)

    def flush(self) -> None:
        """Flush the content to disk, still under the hidden name."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def publish(self, path: Path) -> None:
        """Rename the file to its final name, in the same directory, and flush the directory."""
        self.hidden.rename(path)
        self.file.close()
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Remove the hidden file, if it was not published."""
        self.hidden.unlink(missing_ok=True)
        with suppress(OSError):  # what is buffered may not fit on a full disk
            self.file.close()


def remove_leftovers(directory: Path, pattern: str) -> None:
    """Remove the hidden files that killed programs left: those that nobody locks."""
    for path in directory.glob(pattern):
        with suppress(OSError), path.open("rb") as left:  # still locked by its writer, or not removable
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Return whether a name is that of a pipe, a device or a descriptor (/dev/stdout), which is written directly."""
    absolute = str(path.absolute())
    return path.exists() and not path.is_dir() and (absolute.startswith(("/dev/", "/proc/")) or not path.is_file())


def check_writable(name: str, option: str) -> None:
    """Raise UsageError, before any work, for a file that cannot be written. `option` is the one that named it.

    A symbolic link is refused: whoever may write beside it could choose what is overwritten.
    """
    path, why = Path(name), None
    try:
        if is_special(path):
            why = None if os.access(path, os.W_OK) else "it is not writable"
        elif path.is_symlink():
            why = "it is a symbolic link"
        elif path.is_dir():
            why = "it is a directory"
        elif path.exists() and not os.access(path, os.W_OK):
            why = "it is not writable"
        elif not path.absolute().parent.is_dir():
            why = "its directory does not exist"
        elif not os.access(path.absolute().parent, os.W_OK | os.X_OK):
            why = "its directory is not writable"
        else:
            path.lstat()  # a name that is too long
    except FileNotFoundError:
        pass
    except OSError as exc:
        why = exc.strerror
    if why:
        raise UsageError(f"cannot write {name}", why=why, fix=f"name another file with {option}")


def hidden_name(path: Path) -> str:
    """Return a name for the hidden file of a file; random, so that two writers do not meet."""
    return f".{path.name[:40]}.{os.urandom(4).hex()}.part"


@contextmanager
def written(
    name: str, option: str, *, encoding: str = "utf-8", errors: str = "strict", append: bool = False,
    mode: int = 0o600,
) -> Iterator[IO[str]]:  # fmt: skip
    """Yield a text file that gets its name, and replaces the one that has it, when it is complete and on disk.

    The file is readable by the user alone, unless `mode` says otherwise. With `append` it begins with what the one of
    this name holds. `option` named the file. Raises UsageError where it cannot be written, UnreachableError where
    writing fails (a full disk).
    """
    check_writable(name, option)
    path = Path(name)
    try:
        if is_special(path):
            with path.open("a" if append else "w", encoding=encoding, errors=errors, newline="") as file:
                yield file
            return
        remove_leftovers(path.parent, f".{glob.escape(path.name[:40])}.*.part")
        aside = Aside(path.with_name(hidden_name(path)), mode)
        try:
            if append:
                aside.file.write(path.read_bytes())
            text = io.TextIOWrapper(aside.file, encoding=encoding, errors=errors, newline="")
            yield text
            text.flush()
            aside.flush()
            aside.publish(path)
        finally:
            aside.discard()
    except OSError as exc:
        raise UnreachableError(f"cannot write {name}", why=exc.strerror, fix=way_out(exc, option)) from exc
