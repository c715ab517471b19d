"""The values of a command line without pydantic, where nothing is to be converted."""

from dataclasses import dataclass
from typing import Any

from typer._coercion import TypeDescriptor, build_runtime_param

TEXT = (str, str | None, list[str], list[str] | None)


@dataclass(frozen=True)
class Conversion:
    """In the place of Typer's converter of one parameter, which it still asks for numbers, dates and choices.

    Typer converts with pydantic, whose import takes 0.06 s, as long as psycopg's; most command lines hold text only.
    """

    type: TypeDescriptor

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ANN401
        """Return the value for the command. Raises BadParameter; UnicodeEncodeError for text that is not UTF-8."""
        is_several = param.multiple or param.nargs == -1
        if value is None:
            return () if is_several else None
        words = value if isinstance(value, list | tuple) else [value]
        if self.type.annotation in TEXT and all(type(word) is str for word in words):
            for word in words:
                word.encode()
            return list(words) if is_several else value
        if type(value) is self.type.annotation:  # a default
            return value
        return build_runtime_param(self.type).coerce(value, param=param, ctx=ctx)
