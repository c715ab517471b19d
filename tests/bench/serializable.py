"""How often SERIALIZABLE writers must try again: on Rollbook's portal, against the same tables without triggers.

Six clients, each with users of its own, run transactions of two or three statements: enroll, leave, rename, change a
profile. No two of them touch the same row, so each refusal is a false conflict. Both sides run the same transactions.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import Connection

if TYPE_CHECKING:
    from tests.bench.bench import Bench

CLIENTS, TRANSACTIONS = 6, 150  # of each client, in one round
THINKING = 0.002  # seconds after each statement, in which the others go on
Script = list[tuple[LiteralString, tuple[Any, ...]]]

ENROLL: LiteralString = "insert into portal.student_courseenrollment (user_id, course_id) values (%s, %s)"
LEAVE: LiteralString = "delete from portal.student_courseenrollment where user_id = %s and course_id = %s"
RENAME: LiteralString = "update portal.auth_user set last_name = %s where id = %s"
PROFILE: LiteralString = "update portal.auth_userprofile set goals = %s where user_id = %s"


def scripts(conn: Connection[Any], chance: random.Random) -> list[list[Script]]:
    """Draw the transactions of one round for each client; they suit the enrollments that there are."""
    courses = [course for (course,) in conn.execute("select course_id from rollbook.course order by 1")]
    enrolled: dict[int, set[str]] = {user: set() for (user,) in conn.execute("select id from portal.auth_user")}
    for user, course in conn.execute("select user_id, course_id from portal.student_courseenrollment order by 1, 2"):
        enrolled[user].add(course)

    def statement(user: int) -> tuple[LiteralString, tuple[Any, ...]]:
        kind, held = chance.choice([ENROLL, LEAVE, RENAME, PROFILE]), enrolled[user]
        if kind == ENROLL and len(held) < len(courses):
            held.add(course := chance.choice([course for course in courses if course not in held]))
            return ENROLL, (user, course)
        if kind == LEAVE and held:
            held.remove(course := chance.choice(sorted(held)))
            return LEAVE, (user, course)
        return RENAME if kind == RENAME else PROFILE, (str(chance.random()), user)

    def script(users: list[int]) -> list[Script]:
        return [[statement(chance.choice(users)) for _ in range(chance.randint(2, 3))] for _ in range(TRANSACTIONS)]

    return [script([user for user in enrolled if user % CLIENTS == client]) for client in range(CLIENTS)]


def play(conn: Connection[Any], script: list[Script]) -> int:
    """Commit the transactions one after the other; return how often one was refused and tried again."""
    retries = 0
    for transaction in script:
        while True:
            try:
                with conn.transaction():
                    for query, values in transaction:
                        conn.execute(query, values)
                        time.sleep(THINKING)
            except psycopg.errors.SerializationFailure:
                retries += 1
            else:
                break
    return retries


def rate(bench: Bench, dbname: str, drawn: list[list[Script]]) -> float:
    """Run the clients at the same time; return the retries of 1,000 transactions."""
    clients = [bench.connect(dbname) for _ in drawn]
    for client in clients:
        client.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    try:
        with ThreadPoolExecutor(len(drawn)) as pool:
            retries = sum(pool.map(play, clients, drawn))
    finally:
        for client in clients:
            client.close()
    return 1000 * retries / sum(map(len, drawn))


def serializable(bench: Bench) -> None:
    """Retries of 1,000 transactions, on a portal of usual size and on a small one."""
    for courses, users in ((50, 20_000), (5, 1_000)):
        with bench.databases(courses, enrolled=True, users=users) as (routed, _):
            chance = random.Random(courses)
            rates: tuple[list[float], list[float]] = ([], [])
            for turn in range(bench.pairs):
                drawn = scripts(routed, chance)
                for side in (0, 1) if turn % 2 else (1, 0):
                    rates[side].append(rate(bench, ("routed", "plain")[side], drawn))
            ours, yardstick = map(statistics.mean, rates)
            least = 1000 / (bench.pairs * CLIENTS * TRANSACTIONS)  # what is rarer is not seen
            name = f"retries of 1,000 SERIALIZABLE transactions, {courses} courses, {users:,} users"
            bench.note(name, ours, max(yardstick, least), None, unit="")


MEASURES: dict[str, Callable[[Bench], None]] = {"serializable": serializable}
