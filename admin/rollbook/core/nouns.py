"""The nouns of the command line: a table, so that the module of a noun is imported when the noun is called."""

from typing import NamedTuple

import typer


class Noun(NamedTuple):
    """A first word of the command line: the module that holds its commands, and its place in the help."""

    module: str  # below rollbook; its `app` has all the commands of the noun
    panel: str
    help: str
    reads: str = ""  # a module with some of its commands alone, which imports less: it is tried first

    @property
    def is_of_people(self) -> bool:
        """Return whether its commands work on people: an operator may run them, and they need the default's tables."""
        return self.panel in ("People", "Test centre")


NOUNS = {
    "status": Noun(
        "replication.commands.status", "Look",
        "Show the portal and every course on one screen, the worst first, with the command to run next.",
    ),
    "top": Noun(
        "replication.commands.top", "Look",
        "Show the portal and every course full screen, the worst first, with lag and rows/s of the last looks.",
    ),
    "check": Noun(
        "system.commands.check", "Look",
        "Judge courses, servers, slots, schema, last verify and queues: ok, warning, critical or unknown.",
    ),
    "metrics": Noun(
        "system.commands.metrics", "Look", "Export the state of courses, servers, slots and queues for Prometheus.",
    ),
    "course": Noun(
        "replication.commands.placement", "Courses and replication",
        "Courses: create, show, place on a server, delete.", reads="replication.commands.course",
    ),
    "shape": Noun(
        "replication.commands.shape", "Courses and replication",
        "Which tables, columns and rows are copied: show and change them.",
    ),
    "replication": Noun(
        "replication.commands.replication", "Courses and replication",
        "Copies in course schemas and on course servers: state, comparison, repair.",
    ),
    "server": Noun(
        "replication.commands.server", "Courses and replication", "Course servers: add, show, ping, move, remove.",
    ),
    "user": Noun(
        "people.commands.user_file", "People", "Users: find, create, change, import, export.",
        reads="people.commands.user",
    ),
    "registration": Noun("people.commands.registration", "People", "Activation keys: show, use, renew."),
    "group": Noun("people.commands.group", "People", "Groups: named sets of users."),
    "name-change": Noun("people.commands.name_change", "People", "Name changes: request, approve, reject."),
    "email-change": Noun(
        "people.commands.email_change", "People", "E-mail address changes: request, confirm, cancel.",
    ),
    "enrollment": Noun("people.commands.enrollment", "People", "Enrollments: the users of each course."),
    "allowed": Noun("people.commands.allowed", "People", "E-mail addresses that may enroll in a course."),
    "discussion": Noun("people.commands.discussion", "People", "User changes that the discussion service receives."),
    "candidate": Noun("testcentre.commands.candidate", "Test centre", "Candidates for exams at a test centre."),
    "exam": Noun("testcentre.commands.exam", "Test centre", "Exams of courses, sat at a test centre."),
    "authorization": Noun(
        "testcentre.commands.authorization", "Test centre", "Permissions of candidates to sit exams.",
    ),
    "pearson": Noun(
        "testcentre.commands.pearson", "Test centre", "Files to and from the test centre, Pearson VUE.",
    ),
    "doctor": Noun(
        "system.commands.doctor", "Look",
        "Look for traps on the portal, its servers and this machine, and print what removes each. Changes nothing.",
    ),
    "history": Noun("system.commands.history", "Look", "The record of changes made with this program."),
    "import": Noun("system.commands.imports", "Look", "Imports of files, each a batch in the history."),
    "schema": Noun(
        "system.commands.adopt", "System", "The database schema: upgrade, adopt a Django site, check, print its SQL.",
        reads="system.commands.schema",
    ),
    "config": Noun("system.commands.config", "System", "Configuration files with profiles: write, show, check."),
    "demo": Noun("system.commands.demo", "System", "A demonstration platform on a private server: no root, no port."),
    "version": Noun(
        "system.commands.version", "System",
        "Show the versions of the program and its parts, and of the database if one answers.",
    ),
}  # fmt: skip


NEEDS = "Needs the default's tables: portal.auth_user and portal.student_courseenrollment."


def noun(name: str) -> typer.Typer:
    """Return what the module of a noun registers its commands with."""
    text = "\n\n".join([NOUNS[name].help, *([NEEDS] if NOUNS[name].is_of_people else [])])
    return typer.Typer(name=name, help=text, no_args_is_help=True)
