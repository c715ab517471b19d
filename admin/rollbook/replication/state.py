"""The state of each course, in one word, from what the portal and its servers report now: see core/states.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import errors

from rollbook.core.db import Caller, Conn
from rollbook.core.errors import UnreachableError
from rollbook.core.shell import course_word
from rollbook.core.states import SEVERITY
from rollbook.replication import observe, obstacle
from rollbook.replication.catalog import Copy
from rollbook.replication.link import find_server, list_servers
from rollbook.replication.observe import Answer, Seen, Sent
from rollbook.replication.queries.courses import CourseState, Fault, course_states

LAG_SECONDS = 10.0  # from here on a course is `lagging`

SYNC = {"i": "waiting", "d": "copying", "f": "copied", "s": "catching up", "r": "ready"}


class Verdict(NamedTuple):
    """A state, why, and the command that helps."""

    state: str
    reason: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Line:
    """A course's line of `status`; the fields are its columns."""

    course: str
    target: str  # `schema NAME` or `server NAME`
    kind: str  # schema or server
    state: str
    lag_bytes: int | None
    lag_seconds: float | None
    pending_changes: int | None
    oldest_pending_seconds: float | None
    error_count: int | None
    verified_at: datetime | None
    verdict: str | None
    differing_rows: int | None
    observed_at: datetime
    reason: str | None
    fix: str | None
    closed_at: datetime | None  # since when it takes no new enrollments


def server_name(line: Line) -> str | None:
    """Return the server of a course's line, None for a course in the portal's database."""
    return line.target.removeprefix("server ") if line.kind == "server" else None


def lost(seen: Seen) -> tuple[str, str] | None:
    """Return the state of a server's courses, and why, where changes are lost for good; None where none are."""
    if seen.slot is None or seen.slot.alarm == "lost":
        reason = seen.slot and (seen.slot.invalidation_reason or "WAL removed")
        why = f"{seen.slot_name} was lost: {reason}" if reason else f"{seen.slot_name} is gone"
        return "broken", f"{why}; changes committed since are not on the server"
    found = seen.reached.subscription if seen.reached else None
    if found is None or found.slot != seen.server.stream or not found.has_heartbeat:
        return "broken", "its subscription is gone, or feeds no table: was the server restored?"
    if not seen.is_published:
        return (
            "broken",
            "its publication is missing, or was for a while; changes committed meanwhile are not on the server",
        )
    if seen.lost_beats[1]:
        sender = "this portal" if seen.relay is None else f"its relay {seen.relay.server.name}"
        who = "the portal" if seen.relay is None else "the relay"
        return "unknown", f"the server has changes that {sender} never sent: was {who} restored?"
    return None


def server_state(seen: Seen) -> str:
    """Return the state of a server, its courses apart; late behind a relay that is not well, it is as that one is."""
    own = own_state(seen)
    if seen.relay is None or own not in ("ok", "lagging"):
        return own
    above = own_state(relay_for(seen, seen.relay))
    return own if above == "ok" else above


def shown_verdict(seen: Seen) -> Verdict:
    """Return the state of a server as its line has it; of one on its way to another source, also why and what ends it.

    Its stream is in pieces meanwhile, and its courses are `moving`, not broken.
    """
    if seen.server.is_moving and seen.reached is not None and not seen.objection:
        return barred(seen)
    return Verdict(server_state(seen))


def relay_for(seen: Seen, relay: Seen) -> Seen:
    """Return what is known of a server's relay, without what only courses of other servers there may lack."""
    return replace(relay, unhealed=[course for course in relay.unhealed if course in set(seen.fed)])


def idle_verdict(seen: Seen) -> Verdict:
    """Return the state of a server without courses, why, and the command that helps: no course's line has it."""
    server, answer = seen.server, seen.answer
    again = f"rollbook server add {server.name}"
    if isinstance(answer, UnreachableError):
        return silent(seen, answer, again)
    if seen.objection or server.is_moving:
        return barred(seen)
    state = own_state(seen)
    if seen.relay is not None and state in ("ok", "lagging"):
        relay = relay_for(seen, seen.relay)
        if (above := idle_verdict(relay)).state != "ok":
            return Verdict(above.state, f"on its relay {relay.server.name}: {above.reason or above.state}", above.fix)
    if state == "broken" and (why_lost := lost(seen)):
        return Verdict(state, why_lost[1].partition("; ")[0], again)
    resume = f"rollbook replication resume --server {server.name}"
    if seen.fault is not None:
        return Verdict(state, f"{seen.fault.words}{since(seen)}", seen.fault.fix(server))
    if state == "broken":
        if not seen.runs:
            return Verdict(state, f"{disabled(seen)}{since(seen)}", resume)
        why = f"its worker meets errors and applies nothing; {seen.diagnosis_error}"
        return Verdict(state, f"{why}{since(seen)}", seen.diagnosis_fix or resume)
    if server.paused_at is not None:
        return Verdict(state, f"paused since {server.paused_at:%Y-%m-%d %H:%M} UTC", resume)
    show = f"rollbook server show {server.name}"
    if state == "ok" and seen.slot and seen.slot.alarm == "near":
        return Verdict("lagging", f"{seen.slot_name} is about to be lost", "rollbook replication slots")
    return Verdict(state) if state == "ok" else Verdict(state, why_late(seen, answer), seen.diagnosis_fix or show)


def own_state(seen: Seen) -> str:
    """Return the state of a server's own stream."""
    if seen.reached is None:
        cut = seen.relay if seen.relay is not None and seen.relay.reached is None else seen
        return "unknown" if cut.server.admin_dsn is None else "unreachable"
    if seen.objection:
        return "unknown"
    found = seen.reached.subscription
    if found is None or seen.slot is None or seen.slot.alarm == "lost":
        return "broken"
    if not seen.server.is_moving and (why_lost := lost(seen)):
        return why_lost[0]
    if seen.server.paused_at:
        return "paused"
    if not found.enabled or seen.is_stuck:
        return "broken"
    if seen.unhealed:
        return "unknown"
    return "ok" if seen.reached.is_current and not seen.reached.is_failing else "lagging"


def server_fault(seen: Seen, fed: Sequence[str]) -> Verdict | None:
    """Return why what a server was sent, or its relay, is not known to be there, and the command that helps.

    `fed`: its courses. None where nothing was lost, and for a server that does not answer.
    """
    for hop in [seen] if seen.relay is None else [seen, relay_for(seen, seen.relay)]:
        if hop.objection:
            return Verdict("unknown", hop.objection.message, hop.objection.fix)
        if hop.reached is None or hop.server.is_moving:
            continue
        why_lost = lost(hop)
        if why_lost or hop.unhealed:
            due = fed if why_lost else hop.unhealed
            fix = f"rollbook replication resync {' '.join(map(course_word, due))}"
            state, why = why_lost or ("unknown", never_arrived(hop.lost_beats[0]))
            where = "" if hop is seen else f"on its relay {hop.server.name}: "
            return Verdict(state, f"{where}{why}", fix if due else f"rollbook server add {hop.server.name}")
    return None


def never_arrived(gaps: Sequence[Sent]) -> str:
    """Return in words that heartbeats are missing between others."""
    return f"{len(gaps)} heartbeats never arrived, the last of {gaps[-1].sent_at:%Y-%m-%d %H:%M} UTC"


def course_state(course: CourseState, seen: Seen) -> Verdict:
    """Return the state of a course on a server, why, and the command that helps; what a relay lacks is the cause."""
    own = state_at(course, seen)
    if seen.relay is None or isinstance(seen.relay.answer, UnreachableError):
        return own
    above = state_at(course, seen.relay, seen.server.name)
    is_cause = above.state != "ok" and (own.state in ("ok", "lagging") or SEVERITY[above.state] <= SEVERITY[own.state])
    if is_cause and above != own:
        reason = f"on its relay {seen.relay.server.name}: {above.reason or above.state}"
        return Verdict(above.state, reason, above.fix)
    return own


def state_at(course: CourseState, seen: Seen, behind: str | None = None) -> Verdict:
    """Return the state of a course on one server, or on its relay; `behind`: the server that gets it from there."""
    server, to = seen.server, behind or seen.server.name
    quoted = course_word(course.course)
    resync = f"rollbook replication resync {quoted}"
    if isinstance(seen.answer, UnreachableError):
        return silent(seen, seen.answer, resync)
    if seen.objection or server.is_moving:
        return barred(seen)
    if course.recorded == "detached":
        return Verdict("detached", "its detach was not finished", f"rollbook course detach {quoted}")
    if why_lost := lost(seen):
        return Verdict(*why_lost, resync)
    if course.fault is not None:
        return beside_portal(course)
    copies = seen.answer.copies.get(course.schema_name, [])
    lacking = [f"{copy.table}: {', '.join(copy.lacking)}" for copy in copies if copy.is_there and copy.lacking]
    if lacking:
        why = f"columns are missing on the server: {'; '.join(lacking)}"
        added = seen.additions[course.schema_name]
        moving_to = to if course.moving_to == to else None
        fix = obstacle.fix_lines(server, course.course, added, ["resume", "repair"], moving_to=moving_to)
        return Verdict("broken", why, fix)
    if server.paused_at is not None:
        return Verdict(
            "paused", f"paused since {server.paused_at:%Y-%m-%d %H:%M} UTC", f"rollbook replication resume {quoted}"
        )
    if short := seen.unsent.get(course.schema_name):
        where = "the portal" if seen.relay is None else f"server {seen.relay.server.name}"
        names = "; ".join(f"{table} without {', '.join(columns)}" for table, columns in short.items())
        return Verdict("broken", f"its publication on {where} sends {names}", resync)
    if not seen.runs or seen.is_stuck or (seen.fault and seen.fault.schema_name == course.schema_name):
        return stopped(course, seen, copies)
    if course.paused_at is not None:
        return beside_portal(course)
    if verdict := unlisted(course, seen, copies, to):
        return verdict
    if any(copy.sync != "r" for copy in copies):
        done = sum(copy.sync == "r" for copy in copies)
        return Verdict("copying", f"{done} of {len(copies)} tables are copied")
    return running(course, seen, resync)


def unlisted(course: CourseState, seen: Seen, copies: Sequence[Copy], to: str) -> Verdict | None:
    """Return the state of a course whose copies are not all there, published and subscribed to; `to`: its server."""
    quoted = course_word(course.course)
    if not copies or not all(copy.is_there for copy in copies):
        return Verdict("broken", "its tables are missing on the server", f"rollbook replication resync {quoted}")
    is_listed = seen.published.get(course.schema_name, 0) >= len(copies)
    if not is_listed and course.recorded in ("ok", "unknown") and all(copy.sync == "r" for copy in copies):
        why = f"publication {seen.server.stream} does not list all its tables; changes of these are not on the server"
        return Verdict("broken", why, f"rollbook replication resync {quoted}")
    if is_listed and all(copy.sync is not None for copy in copies):
        return None
    return Verdict("broken", "its attach was not finished", f"rollbook course attach {quoted} --to {to}")


def barred(seen: Seen) -> Verdict:
    """Return the state of a course whose server another portal feeds, or is on its way to another source."""
    if seen.objection:
        return Verdict("unknown", seen.objection.message, seen.objection.fix)
    return Verdict("moving", seen.server.moving_words, seen.server.move_command)


def why_silent(seen: Seen, answer: UnreachableError) -> str | None:
    """Return why a server does not answer: itself, or the relay that feeds it."""
    if seen.relay is not None and isinstance(seen.relay.answer, UnreachableError):
        return f"unreachable through {seen.relay.server.name}: {answer.why}"
    return answer.why


def silent(seen: Seen, answer: UnreachableError, resync: str) -> Verdict:
    """Return the state of a course on a server that does not answer: what the portal knows of its slot is known."""
    if seen.relay is not None and isinstance(seen.relay.answer, UnreachableError):
        name = seen.relay.server.name
        return Verdict(own_state(seen), why_silent(seen, answer), f"rollbook server ping {name}")
    state, ping = own_state(seen), answer.fix or f"rollbook server ping {seen.server.name}"
    if (seen.slot is None or seen.slot.alarm == "lost") and (why_lost := lost(seen)):
        return Verdict(state, f"{answer.why}; {why_lost[1]}", f"{ping}; then: {resync}")
    if seen.slot is not None and seen.slot.alarm == "near":
        return Verdict(state, f"{answer.why}; {seen.slot_name} is about to be lost", ping)
    return Verdict(state, answer.why, ping)


def running(course: CourseState, seen: Seen, resync: str) -> Verdict:
    """Return the state of a course whose stream runs: whether everything arrived, and in time."""
    quoted = course_word(course.course)
    gaps, _ = seen.lost_beats
    is_new = course.recorded == "copying"  # it came after the gap, or is compared in any case
    if gaps and not is_new and (course.compared_at is None or gaps[-1].sent_at > course.compared_at):
        return Verdict("unknown", never_arrived(gaps), resync)
    copies = seen.reached.copies.get(course.schema_name, []) if seen.reached else []
    if unguarded := [copy.table for copy in copies if not copy.guarded]:
        why = f"other sessions may write its copies on the server: the guard of {', '.join(unguarded)} is missing there"
        return Verdict("unknown", why, resync)
    if course.state in ("broken", "drifted"):
        return drifted(course)
    if course.recorded == "unknown":
        return Verdict("unknown", "its stream was rebuilt; the changes that it missed were not brought back", resync)
    if is_new:
        return Verdict(
            "copying", "the first copy is complete, but not compared yet", f"rollbook replication verify {quoted}"
        )
    lag = seen.lag_seconds()
    if seen.slot and seen.slot.alarm == "near":
        return Verdict("lagging", f"{seen.slot_name} is about to be lost", "rollbook replication slots")
    answer = seen.reached
    if answer is not None and (answer.is_failing or (lag is not None and not answer.is_current)):
        return Verdict("lagging", why_late(seen, answer), seen.diagnosis_fix or f"rollbook replication show {quoted}")
    if lag is not None and lag >= LAG_SECONDS:
        return Verdict("lagging", None, f"rollbook replication show {quoted}")
    return Verdict("ok")


def why_late(seen: Seen, answer: Answer) -> str | None:
    """Return why nothing arrives on a server whose stream runs, and since when."""
    if seen.diagnosis_error is not None:
        return f"its worker has met an error; {seen.diagnosis_error}{since(seen)}"
    if answer.subscription is None or answer.subscription.worker is not None:
        return None
    return f"no worker applies changes there now: PostgreSQL starts it again within seconds{since(seen)}"


def since(seen: Seen) -> str:
    """Return in words since when nothing has arrived on a server that lacks heartbeats."""
    if seen.reached is None or not seen.reached.beats or not seen.missing():
        return ""
    return f"; the last heartbeat there is of {seen.reached.beats[-1].sent_at:%Y-%m-%d %H:%M:%S} UTC"


def stopped(course: CourseState, seen: Seen, copies: list[Copy]) -> Verdict:
    """Return the state of a course whose stream cannot go on: because of its own row, another course's, or disabled."""
    quoted = course_word(course.course)
    fault = seen.fault
    if fault is None:
        if not copies or not all(copy.is_there for copy in copies):
            return Verdict("broken", "its tables are missing on the server", f"rollbook replication resync {quoted}")
        if seen.runs:
            why = f"its worker meets errors and applies nothing; {seen.diagnosis_error}{since(seen)}"
            return Verdict("broken", why, seen.diagnosis_fix or f"rollbook replication show {quoted}")
        return Verdict("broken", disabled(seen), f"rollbook replication resume {quoted}")
    is_own = fault.schema_name == course.schema_name
    why = fault.words if is_own else f"replication stopped because of {fault.schema_name}.{fault.table}"
    return Verdict("broken", f"{why}{since(seen)}", fault.fix(seen.server, course.course))


def disabled(seen: Seen) -> str:
    """Return why a server applies nothing whose subscription is disabled, and no row is known that it refuses."""
    return f"its subscription was disabled; {seen.diagnosis_error or 'the next transaction would be applied now'}"


def beside_portal(course: CourseState) -> Verdict:
    """Return the state of a course's copies in the portal's database."""
    word = course_word(course.course)
    if course.paused_at is not None:
        why = f"paused since {course.paused_at:%Y-%m-%d %H:%M} UTC: {course.pause_reason or 'no reason given'}"
        return Verdict("paused", why, f"rollbook course resume {word}")
    if course.fault is not None:
        return Verdict("broken", course.fault, f"rollbook replication repair {word}")
    if course.state == "ok":
        return Verdict("ok")
    return drifted(course)


def drifted(course: CourseState) -> Verdict:
    """Return the state of a course that the last verify found different, or that has skipped a transaction."""
    word = course_word(course.course)
    if course.verdict != "differs":
        return Verdict(course.state, None, f"rollbook replication verify {word}")
    if not course.differing_rows:
        return Verdict(
            course.state,
            "a transaction was skipped, and it was not compared since",
            f"rollbook replication verify {word}",
        )
    why = f"{course.differing_rows} rows differed at {course.verified_at:%Y-%m-%d %H:%M} UTC"
    return Verdict(course.state, why, f"rollbook replication repair {word}")


def line(course: CourseState, seen: Seen | None) -> Line:
    """Return a course's line of `status`; `seen` None: its copies are in the portal's database alone."""
    if seen is None:
        state, reason, fix = beside_portal(course)
        return Line(
            course.course, f"schema {course.schema_name}", "schema", state, 0, 0, 0, None, 0,
            course.verified_at, course.verdict, course.differing_rows, course.observed_at, reason, fix,
            course.closed_at,
        )  # fmt: skip
    state, reason, fix = course_state(course, seen)
    answer = seen.reached
    lag = seen.lag_seconds()
    return Line(
        course.course, f"server {seen.server.name}", "server", state, seen.lag_bytes, lag, None,
        lag if answer and not answer.is_current else None,
        answer.subscription.errors if answer and answer.subscription else None,
        course.verified_at, course.verdict, course.differing_rows, course.observed_at, reason, fix,
        course.closed_at,
    )  # fmt: skip


def unasked(course: CourseState, exc: errors.InsufficientPrivilege) -> Line:
    """Return the line of a course on a server that this role may not ask: what the portal knows of it."""
    return replace(
        line(course, None), target=f"server {course.server}", kind="server", state="unreachable",
        reason=f"its server was not asked: {exc.diag.message_primary}",
        fix="ask with a role that may: rollbook status; the portal alone: rollbook course list",
    )  # fmt: skip


def with_move(found: Line, course: CourseState, seen: Mapping[str, Seen]) -> Line:
    """Return a course's line, no better than its move lets it be: it is on two servers until that is finished."""
    move = f"rollbook course move {course_word(course.course)} --to"
    if course.leaving is not None:
        verdict = Verdict(
            "moving", f"its copies on server {course.leaving} are not removed yet", f"{move} {course.server}"
        )
    elif there := seen.get(course.moving_to or ""):
        verdict = arriving(course, there, move)
    else:
        return found
    if SEVERITY[found.state] <= SEVERITY[verdict.state]:
        return found
    return replace(found, state=verdict.state, reason=verdict.reason, fix=verdict.fix)


def arriving(course: CourseState, seen: Seen, move: str) -> Verdict:
    """Return the state of a course as the server to which it moves lets it be; `move` is the command without it."""
    name = seen.server.name
    # What was lost before does not count: a move compares the course before it ends.
    due = replace(course, recorded="ok", state="ok", verdict="match", verified_at=course.observed_at)
    there = course_state(due, seen)
    copies = seen.reached.copies.get(course.schema_name, []) if seen.reached else []
    is_built = bool(copies) and all(copy.is_there and copy.sync for copy in copies)
    if there.state in ("ok", "copying", "lagging") or (there.state == "broken" and lost(seen) is None and not is_built):
        how = "all its copies are there" if there.state == "ok" else there.reason or there.state
        return Verdict("moving", f"from server {course.server} to server {name}: {how}", f"{move} {name}")
    fix = there.fix
    if seen.reached and not seen.objection and " course move " not in (fix or ""):
        fix = f"{move} {course.server if lost(seen) else name}"
        if seen.server.paused_at is not None:
            fix = f"rollbook replication resume --server {name}"
    return Verdict(there.state, f"on server {name}, to which it moves: {there.reason}", fix)


def with_faults(found: Line, faults: Sequence[Fault]) -> Line:
    """Return a course's line, no better than the faults of routing let it be: nothing is ok while routing is off."""
    own = min(
        (fault for fault in faults if fault.course == found.course), key=lambda each: each.kind == "guard", default=None
    )
    fault = own or next((fault for fault in faults if fault.course is None and fault.is_routing), None)
    if fault is None or found.state == "paused":
        return found
    state = "broken" if own and own.kind != "guard" else "unknown"
    if SEVERITY[found.state] < SEVERITY[state] or (found.reason and SEVERITY[found.state] == SEVERITY[state]):
        return found
    # What was written while the portal did not route is in no copy.
    fix = fault.fix if own else fault.fix.rstrip(";") + "; then: rollbook replication repair"
    return replace(found, state=state, reason=fault.words, fix=fix)


def observed(
    portal: Conn, course_ids: list[str] | None, faults: Sequence[Fault], caller: Caller
) -> tuple[list[Line], dict[str, Seen]]:
    """Return a line a course, the worst first, and by server, relays too, what it has answered.

    None: all courses, and all servers, those without courses too. `faults`: what routing_faults returns. No server that
    this role may not ask. The session must be in autocommit.
    """
    asked = course_states(portal, course_ids)
    wanted = {name for course in asked for name in (course.server, course.moving_to)}
    seen: dict[str, Seen] = {}
    try:
        servers = [server for server in list_servers(portal) if course_ids is None or server.name in wanted]
        looked = observe.look(portal, servers, caller)
        relays = {each.relay.server.name: each.relay for each in looked if each.relay is not None}
        seen = {**relays, **{each.server.name: each for each in looked}}
    except errors.InsufficientPrivilege as exc:
        found = [unasked(course, exc) if course.server else line(course, None) for course in asked]
    else:
        found = [with_move(line(course, seen.get(course.server or "")), course, seen) for course in asked]
    found = [with_faults(each, faults) for each in found]
    return sorted(found, key=lambda each: (SEVERITY[each.state], each.course)), seen


def describe_course(portal: Conn, course_id: str, caller: Caller) -> dict[str, Any]:
    """Return all that is known of one course: the document of `replication show`."""
    (course,) = course_states(portal, [course_id])
    if course.server is None:
        return {**vars(line(course, None)), "server": None}
    names = [name for name in (course.server, course.moving_to) if name]
    seen = observe.look(portal, [find_server(portal, name) for name in names], caller)
    found = detail(course, seen[0])
    moved = with_move(line(course, seen[0]), course, {each.server.name: each for each in seen})
    if moved.state != found["state"]:
        found |= {"state": moved.state, "reason": moved.reason, "fix": moved.fix}
    there = None
    if course.moving_to is not None:
        there = detail(replace(course, recorded="ok", state="ok"), seen[1])
        there["fix"] = there["fix"] if " course move " in (there["fix"] or "") else moved.fix
    found = {**found, "moving_to": there, "leaving": course.leaving}
    if (relay := seen[0].relay) is not None:
        found["relay"] = {key: value for key, value in detail(course, relay).items() if key not in ("course", "fix")}
    return found


def detail(course: CourseState, seen: Seen) -> dict[str, Any]:
    """Return the document of `replication show` for a course on a server."""
    summary = line(course, seen)
    answer = seen.reached
    found = answer.subscription if answer else None
    fault = seen.fault
    return {
        "course": summary.course, "server": seen.server.name, "state": summary.state, "reason": summary.reason,
        "fix": shown_fix(summary, seen), "lag_bytes": summary.lag_bytes,
        "lag_seconds": summary.lag_seconds,
        "slot": dict(vars(seen.slot)) if seen.slot else None,
        "subscription": None if found is None else {
            "name": seen.server.stream, "enabled": found.enabled, "worker": found.worker,
            "apply_errors": found.apply_errors, "sync_errors": found.sync_errors,
            "conflicts": {name: count for name, count in found.conflicts.items() if count},
        },
        "tables": [
            {"table": copy.table, "is_there": copy.is_there, "guarded": copy.guarded,
             "copy": SYNC.get(copy.sync or "", "not fed"), "lacking": copy.lacking}
            for copy in (answer.copies.get(course.schema_name, []) if answer else [])
        ],
        "error": None if fault is None else {
            "course": fault.course, "table": fault.table, "key": fault.key,
            "operation": fault.operation, "sqlstate": fault.sqlstate, "message": fault.message,
            "lsn": fault.finish_lsn,
        },
    }  # fmt: skip


def shown_fix(summary: Line, seen: Seen) -> str | None:
    """Return the fix of a course's line for `show`: with every way, and never `show` itself."""
    for hop in seen.hops:
        if hop.fault is not None and summary.fix == hop.fault.fix(hop.server, summary.course):
            return hop.fault.fix(hop.server, summary.course, with_skip=True)
    return None if summary.fix and summary.fix.startswith("rollbook replication show ") else summary.fix
