"""The objects that command lines name, declared once: what help calls them, and what completes them."""

from typing import Annotated

import typer

from rollbook.core.completion import courses, groups, servers

Course = Annotated[
    str,
    typer.Argument(
        metavar="COURSE",
        help="The course ID, such as MITx/6.002x/2012_Fall.",
        autocompletion=courses,
        show_default=False,
    ),
]
Courses = Annotated[
    list[str],
    typer.Argument(metavar="COURSE...", help="Course IDs, see rollbook course list.", autocompletion=courses),
]
AnyCourses = Annotated[
    list[str],
    typer.Argument(metavar="[COURSE...]", help="Default: all courses.", autocompletion=courses, show_default=False),
]
OfCourse = Annotated[
    str | None, typer.Option("--course", metavar="COURSE", help="Only this course.", autocompletion=courses)
]
User = Annotated[
    str, typer.Argument(metavar="USER", help="A username, an e-mail address, id:N, username:X or email:X.")
]
Users = Annotated[
    list[str], typer.Argument(metavar="USER...", help="Users; - reads them from standard input, @FILE from a file.")
]
OfUsers = Annotated[
    list[str],
    typer.Option(
        "--user", metavar="USER",
        help="Only this user, looked up by key; can be repeated. id:N finds copies of a deleted user too.",
    ),
]  # fmt: skip
OfCourses = Annotated[
    list[str],
    typer.Option(
        "--course", metavar="COURSE", help="Only this course; can be repeated.", autocompletion=courses
    ),
]  # fmt: skip
OfUser = Annotated[str | None, typer.Option("--user", metavar="USER", help="Only this user.")]
Group = Annotated[str, typer.Argument(metavar="GROUP", help="A group, see rollbook group list.", autocompletion=groups)]
Groups = Annotated[
    list[str], typer.Argument(metavar="GROUP...", help="Groups, see rollbook group list.", autocompletion=groups)
]
AnyGroups = Annotated[
    list[str] | None, typer.Argument(metavar="[GROUP...]", help="Default: all groups.", autocompletion=groups)
]
OfGroup = Annotated[
    str | None, typer.Option("--group", metavar="GROUP", help="Only members of this group.", autocompletion=groups)
]
ServerName = Annotated[
    str, typer.Argument(metavar="SERVER", help="A course server, see rollbook server list.", autocompletion=servers)
]
AnyServers = Annotated[
    list[str],
    typer.Argument(metavar="[SERVER...]", help="Default: all servers.", autocompletion=servers, show_default=False),
]
OfServers = Annotated[
    list[str],
    typer.Option(
        "--server", metavar="SERVER", help="All courses of this server; can be repeated.", autocompletion=servers
    ),
]
ImportFile = Annotated[
    str | None,
    typer.Argument(metavar="FILE", help="CSV with a header, .csv.gz or .xlsx; - reads standard input."),
]
