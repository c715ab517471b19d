"""Who is let in: lines of pg_hba.conf, of the portal and of course servers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from psycopg import errors

from rollbook.core.rows import typed
from rollbook.core.shell import quoted
from rollbook.system.doctor.finding import MONITOR, Finding, attention, forbidden, identifier

if TYPE_CHECKING:
    from rollbook.core.db import Conn

RIGHT = (
    f"{MONITOR} grant execute on function pg_hba_file_rules() to {{role}}; "
    "grant select on pg_hba_file_rules to {role};"
)
RELOAD = "select pg_reload_conf();"

RULES = """
select
    r.line_number as line, coalesce(to_jsonb(r) ->> 'file_name', current_setting('hba_file')) as file, r.type,
    coalesce(r.database, '{}') as databases, coalesce(r.user_name, '{}') as users, r.address, r.netmask,
    coalesce(r.auth_method, '') as method, r.error
from pg_hba_file_rules as r
order by coalesce((to_jsonb(r) ->> 'rule_number')::int, r.line_number)
"""

# The logins of subscriptions, from where they come, and the roles whose members they are.
LOGINS = """
select distinct
    v.name as server, r.rolname::text as role, host(a.client_addr) as address,
    array(
        select g.rolname::text from pg_roles as g
        where not r.rolsuper and pg_has_role(r.oid, g.oid, 'member')
    ) as groups
from jsonb_to_recordset(%(servers)s) as v (name text)
inner join pg_replication_slots as s on s.slot_name = 'rollbook_' || v.name and s.database = current_database()
inner join pg_stat_activity as a on a.pid = s.active_pid
inner join pg_roles as r on r.oid = a.usesysid
order by 1
"""


@dataclass(frozen=True)
class Rule:
    """A line of pg_hba.conf."""

    line: int
    file: str
    type: str | None
    databases: list[str]
    users: list[str]
    address: str | None
    netmask: str | None
    method: str
    error: str | None

    @property
    def words(self) -> str:
        """Return which line it is."""
        return f"line {self.line} of {self.file}"

    @property
    def is_of_network(self) -> bool:
        """Return whether other machines come in by it."""
        if self.type in (None, "local"):
            return False
        return self.address not in ("127.0.0.1", "::1", "localhost") and not (
            self.address == "127.0.0.0" and self.netmask == "255.0.0.0"
        )

    def edited(self, script: str) -> str:
        """Return the steps that edit this line, and let the server read it."""
        return f"sed -i {quoted(f'{self.line}{script}', always=True)} {quoted(self.file)}; then: {RELOAD}"

    def takes(self, login: Login) -> bool:
        """Return whether a physical replication connection of a login is decided by this line."""
        if "replication" not in self.databases or self.error or (self.type == "local") is not (login.address is None):
            return False
        return any(self.names(user, login) for user in self.users) and self.is_from(login.address)

    @staticmethod
    def names(user: str, login: Login) -> bool:
        """Return whether an entry of the column of users means a login."""
        if user.startswith("/"):
            return re.search(user[1:], login.role) is not None
        return user in ("all", login.role) or (user.startswith("+") and user[1:] in login.groups)

    def is_from(self, address: str | None) -> bool:
        """Return whether it is about this address; a name of a host is not resolved, and so not met."""
        if address is None or self.address in ("all", "samehost", "samenet"):
            return True
        try:
            network = ip_network(f"{self.address}/{prefix(self.netmask)}", strict=False)
        except ValueError:
            return False
        return ip_address(address) in network


@dataclass(frozen=True)
class Login:
    """The login of a subscription, as it is connected now; `address` None: by a socket."""

    server: str
    role: str
    address: str | None
    groups: list[str]


def prefix(netmask: str | None) -> str:
    """Return the length of a mask: ip_network reads IPv4 masks as they are, and IPv6 masks as a length alone."""
    return str(bin(int(ip_address(netmask))).count("1")) if netmask else ""


def look(conn: Conn, where: str, fed: Mapping[str, Any] | None = None) -> list[Finding]:
    """Return what is too open in pg_hba.conf; `unknown` where this role may not read it.

    `fed`: the servers whose subscriptions log in here; None: nobody subscribes here.
    """
    try:
        with conn.transaction():
            rules = typed(Rule, conn, RULES)
            known = typed(Login, conn, LOGINS, fed) if fed else []
    except errors.InsufficientPrivilege as exc:
        return [forbidden(conn, "pg_hba", where, str(exc.diag.message_primary), RIGHT)]
    found = [*open_lines(rules, where), *base_backups(rules, known, where)]
    return found or [Finding("pg_hba", where, "ok", "nothing", None, None)]


def open_lines(rules: Iterable[Rule], where: str) -> Iterator[Finding]:
    """Return the lines that are not read, or let in who only knows a name, or send passwords in the clear."""
    for rule in rules:
        if rule.error:
            yield attention(
                "pg_hba", where, f"{rule.words} is wrong, and none of the file is read: {rule.error}",
                "lines without errors", rule.edited("s/^/# /"),
            )  # fmt: skip
        elif rule.is_of_network and rule.method == "trust":
            yield attention(
                "pg_hba", where, f"{rule.words} lets in other machines without a password (trust)", "scram-sha-256",
                rule.edited(r"s/\(.*\)\btrust\b/\1scram-sha-256/"),
            )  # fmt: skip
        elif rule.is_of_network and rule.method == "password" and rule.type != "hostssl":
            yield attention(
                "pg_hba", where, f"{rule.words} lets passwords cross the network in the clear", "scram-sha-256",
                rule.edited(r"s/\(.*\)\bpassword\b/\1scram-sha-256/"),
            )  # fmt: skip


def base_backups(rules: Sequence[Rule], logins: Iterable[Login], where: str) -> Iterator[Finding]:
    """Return the logins of subscriptions that could copy the whole cluster: the first line decides."""
    for login in logins:
        rule = next((rule for rule in rules if rule.takes(login)), None)
        if rule is not None and rule.method != "reject":
            role = identifier(login.role)
            line = (
                f"local replication {role} reject" if login.address is None else (f"host replication {role} all reject")
            )
            yield attention(
                "base backup", where,
                f"{login.role}, the login of server {login.server}, may copy the whole cluster with pg_basebackup: "
                f"{rule.words}",
                "its stream alone", rule.edited(f"i {line}"),
            )  # fmt: skip
