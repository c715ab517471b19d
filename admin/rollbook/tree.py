"""The command tree: nouns from a table; the module of a noun is imported when the noun is called."""

import copy
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from rollbook.core.conversion import Conversion
from rollbook.core.nouns import NOUNS

typer.core.build_runtime_param = Conversion  # type: ignore[assignment,attr-defined]


def usage_name(argument: TyperArgument) -> str:
    """Return an argument as the usage line has it: COURSE, COURSE..., [COURSE...]. Typer adds braces and dots again."""
    name = argument.display_name_raw
    return name if argument.required or name.startswith("[") else f"[{name}]"


TyperArgument._usage_display_name = usage_name  # type: ignore[assignment,method-assign]


class Root(TyperGroup):
    """The program. Help and completion of the first word read the table; a call loads its noun."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 (Typer's signature)
        """Return the nouns, in the order of the help."""
        return list(NOUNS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002
        """Return what the help shows of a noun, None for an unknown one."""
        noun = NOUNS.get(cmd_name)
        return noun and TyperCommand(cmd_name, help=noun.help, rich_help_panel=noun.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401
        """Return the commands of the noun that is called, and the words after it."""
        noun, *rest = args
        if noun not in NOUNS:
            return super().resolve_command(ctx, args)
        return noun, load(noun, rest[0] if rest else None), rest


def load(noun: str, verb: str | None = None) -> Any:  # noqa: ANN401 (Typer keeps the class to itself)
    """Return the commands of a noun; of them only the verb's, if there is such a one: each costs 2 ms."""
    for module in filter(None, (NOUNS[noun].reads, NOUNS[noun].module)):
        app: typer.Typer = import_module(f"rollbook.{module}").app
        only = [info for info in app.registered_commands if info.name == verb]
        if only:
            app = copy.copy(app)
            app.registered_commands = only
            break
    group: Any = typer.main.get_group(app)
    command = group if group.name else group.commands[noun]  # `status` and `version` are verbs themselves
    command.rich_help_panel = NOUNS[noun].panel
    return command


def every_command() -> dict[str, Any]:
    """Return noun -> its commands, all loaded: for references and tests."""
    return {noun: load(noun) for noun in NOUNS}
