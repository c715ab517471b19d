"""Every file of sql/ is tested: in a file of its own name, or where TESTED_IN says."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
OBJECTS = {path.stem for path in (TESTS.parent / "sql").rglob("*.sql")}
OWN_FILES = {path.stem.removeprefix("test_") for path in (TESTS / "sql").rglob("test_*.py")}

# Test file below tests/ -> the objects that it tests. The file names each of them, at least in its docstring.
TESTED_IN = {
    "core/test_shell.py": ["shell_quote"],
    "people/test_allowed.py": ["allowed_status"],
    "people/test_user.py": ["password_kind"],
    "replication/test_archive.py": ["claim_course_id", "readmit", "readmit_course", "readmit_schema"],
    "replication/test_attach.py": ["publish_courses"],
    "replication/test_failover.py": ["portal_identity"],
    "replication/test_relay.py": ["publish", "published_copies", "slots_of"],
    "replication/test_roles.py": [
        "copy_place",
        "digest_columns",
        "digest_rows",
        "hash_ranges",
        "hash_rows",
        "row_hash",
        "server_grants",
    ],
    "replication/test_server.py": ["course_server"],
    "replication/test_status.py": ["beat", "server_route", "slot_status"],
    "sql/functions/test_activate_registration.py": ["auto_enroll", "renew_registration"],
    "sql/functions/test_close_course.py": ["change_closed", "open_course", "refuse_closed"],
    "sql/functions/test_create_course.py": [
        *("choose_schema_name", "copy_statements", "course_schema", "due_rows", "fill_course", "register_course"),
        *("column_list", "course_type", "lock_portal"),
    ],
    "sql/functions/test_default_groups.py": ["default_group"],
    "sql/functions/test_grant_course.py": ["course_rights", "revoke_course"],
    "sql/functions/test_delete_copies.py": ["check_deferred_keys", "refuse_removal"],
    "sql/functions/test_names.py": [
        *("character_word", "hidden_character", "username_fault", "name_fault", "email_fault"),
        *("normal_username", "normal_name", "normal_email", "normal_text"),
    ],
    "sql/functions/test_put_copies.py": ["course_of", "update_copies"],
    "sql/functions/test_register_for_exam.py": ["exam_status"],
    "sql/functions/test_request_email_change.py": ["email_change_status"],
    "sql/functions/test_request_name_change.py": ["name_change_status"],
    "sql/functions/test_rename_course.py": [
        *("begin_rename", "change_course_id", "end_rename", "refuse_former", "rename_memberships"),
    ],
    "sql/functions/test_set_on_leave.py": ["change_on_leave"],
    "sql/functions/test_stray_routes.py": ["leaver_ids", "routed_courses"],
    "sql/functions/test_compare_users.py": ["repair_course", "repair_users", "user_rows"],
    "sql/functions/test_verify.py": ["compare", "differences", "repair"],
    "sql/test_alter_type.py": ["account", "enrollments", "user_with_email"],
    "sql/test_catalog.py": ["copies_of", "course_status", "grants"],
    "sql/test_quarantine.py": [
        *(
            "column_definitions",
            "copy_fault",
            "create_schema",
            "finish_copies",
            "is_fault",
            "meet_fault",
            "obstacle_fix",
        ),
        *("pause_course", "courses_apart", "rebuild_copies", "release_course", "reopen_course", "repair_copies"),
        *("require_running", "restore_copies", "resume_course", "write_copies", "write_copy"),
    ],
    "sql/test_races.py": ["hold_courses", "lock_course_set", "lock_courses", "touch_routes"],
    "sql/test_rights.py": ["refuse_trigger", "require_owner"],
    "sql/test_waits.py": [
        *("blockers", "build_course", "demolish_course", "describe_holder", "lock_wait", "refuse_wait", "take_turns"),
        "withdraw_course",
    ],
    "sql/test_test_centre.py": [
        *("accommodation_names", "authorization_faults", "authorization_status", "candidate_faults"),
        *("candidate_status", "check_authorization", "check_candidate", "registration_status"),
        *("differs_for_export", "due_at", "renew_candidates", "text_fault", "trimmed_record"),
        "exchange_id_fault",
    ],
    "sql/functions/test_update_course.py": [
        *("change_shape", "copy_shape", "course_columns", "course_without", "left_out", "left_out_columns"),
        *("reshape_course", "shape_statements"),
    ],
    "sql/triggers/test_check_account.py": [
        *("check_email", "check_name", "colliding_usernames", "guard_usernames", "refuse_taken_username"),
    ],
    "sql/triggers/test_guard_copy.py": ["guard_statements"],
    "sql/triggers/test_route_enrollment_delete.py": ["leave_courses"],
    "sql/triggers/test_route_enrollment_insert.py": ["join_courses"],
    "sql/triggers/test_route_profile.py": [
        *("route_profile_delete", "route_profile_insert", "route_profile_update", "settle_profiles"),
    ],
    "sql/views/test_enrollment_status.py": ["is_copied"],
    "system/test_schema_check.py": [
        *("copied_columns", "copy_differences", "foreign_code", "foreign_objects", "foreign_rights", "missing_rights"),
        *("replica_settings", "routing_fault", "sequences_behind"),
    ],
    "django/test_adoption.py": ["alter_site_table"],
    "system/test_adopt_site.py": ["portal_table"],
    "system/test_other_shapes.py": ["real_table"],
    "sql/test_shape.py": ["condition_names", "memberships", "memberships_of", "persons"],
    "testcentre/test_pearson_import.py": ["exchange_file_status"],
}
LISTED = [name for names in TESTED_IN.values() for name in names]


def test_every_object_has_a_test_file_or_an_entry() -> None:
    assert sorted(OBJECTS - OWN_FILES - set(LISTED)) == []


def test_every_entry_names_one_object_that_has_no_test_file() -> None:
    assert sorted(set(LISTED) - (OBJECTS - OWN_FILES)) == []
    assert sorted(LISTED) == sorted(set(LISTED))


def test_every_entrys_file_mentions_its_objects() -> None:
    silent = {
        file: missing
        for file, names in TESTED_IN.items()
        if (missing := [name for name in names if not re.search(rf"\b{name}\b", (TESTS / file).read_text())])
    }
    assert silent == {}
