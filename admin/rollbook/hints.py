"""What a wrong command line was probably meant to be: words out of place, a plural, another program's verb."""

import shlex
from collections.abc import Iterable
from difflib import get_close_matches

from typer.core import TyperGroup

from rollbook.core.conninfo import masked
from rollbook.core.errors import UsageError
from rollbook.core.nouns import NOUNS
from rollbook.tree import load

# What other programs call it -> what it may be called here.
SYNONYMS = {
    "get": ["show"], "info": ["show"], "describe": ["show"], "view": ["show"], "ls": ["list"], "find": ["list"],
    "rm": ["delete", "remove"], "del": ["delete", "remove"], "drop": ["delete", "remove"],
    "remove": ["delete", "cancel"], "delete": ["remove", "cancel"], "new": ["create", "add"],
    "make": ["create", "add"], "add": ["create"], "create": ["add"], "edit": ["update"], "set": ["update"],
    "change": ["update"], "modify": ["update"], "migrate": ["upgrade"], "stop": ["pause", "down"],
    "start": ["resume", "up"], "compare": ["verify"], "diff": ["verify"], "fix": ["repair"],
    "student": ["user"], "account": ["user"], "people": ["user"], "database": ["schema"], "log": ["history"],
}  # fmt: skip


def explained(words: list[str], otherwise: str) -> UsageError:
    """Return the error of a command line that no command takes, with the command that was meant as its remedy."""
    at = place(words, NOUNS)
    if at == len(words):
        return UsageError(otherwise, fix="rollbook --help")
    word, after, options = words[at], words[at + 1 :], words[:at]
    if word not in NOUNS:
        fix = "rollbook --help"
        if noun := owner(word):
            fix = correct(noun, words[at:], options)
        elif noun := near(word, NOUNS):
            fix = correct(noun, after, options)
        return UsageError(f"there is no command {word}", fix=fix)
    if options or (after and after[0].startswith("-")):
        return UsageError("options come after the command", fix=correct(word, after, options))
    return UsageError(f"rollbook {word} has no command {after[0]}", fix=correct(word, after, options))


def correct(noun: str, after: list[str], options: list[str]) -> str:
    """Return a command line that works: the noun, the nearest verb, what follows it, and the options that stood before.

    Where the verb is unknown, an option is not the verb's or an argument is missing it is the help.
    """
    command, line = load(noun), ["rollbook", noun]
    if isinstance(command, TyperGroup):
        verb_at = place(after, command.commands)
        verb = near(after[verb_at], command.commands) if verb_at < len(after) else None
        if verb is None:
            return shlex.join([*line, "--help"])
        command, line = command.commands[verb], [*line, verb]
        options, after = [*options, *after[:verb_at]], after[verb_at + 1 :]
    known = {name for param in command.params for name in param.opts}
    lacks = any(param.required for param in command.params) and not after
    if lacks or any(word.startswith("-") and word.partition("=")[0] not in known for word in options):
        return shlex.join([*line, "--help"])
    return masked(shlex.join([*line, *after, *options]))


def place(words: list[str], known: Iterable[str]) -> int:
    """Return the index of the noun or verb: the first known word, else the first that is not an option."""
    known = set(known)
    places = [at for at, word in enumerate(words) if word in known]
    places += [at for at, word in enumerate(words) if not word.startswith("-")]
    return places[0] if places else len(words)


def near(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is meant: itself, its singular, a synonym, or one of a similar spelling."""
    known = list(known)
    synonyms = SYNONYMS.get(word.removesuffix("s"), []) + SYNONYMS.get(word, [])
    for candidate in (word, word.removesuffix("s"), *synonyms, *get_close_matches(word, known, n=1)):
        if candidate in known:
            return candidate
    return None


def owner(verb: str) -> str | None:
    """Return the noun that alone has such a verb, as `replication` has `verify`."""
    owners = [noun for noun in NOUNS if verb in getattr(load(noun), "commands", ())]
    return owners[0] if len(owners) == 1 else None
