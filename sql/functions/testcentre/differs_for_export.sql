-- differs_for_export: whether two versions of a candidate or an authorization differ in what is exported. What the
-- exchange with the test centre itself writes does not count.
-- Called:   by check_candidate and check_authorization, to mark a record as due. Inlined, so no SET clause.
-- Security: INVOKER; constant.
create or replace function rollbook.differs_for_export(old_record jsonb, new_record jsonb) returns boolean
language sql immutable
as $$
    select old_record - exchanged.columns is distinct from new_record - exchanged.columns
    from (
        values (array[
            'user_updated_at', 'updated_at', 'uploaded_at', 'processed_at', 'confirmed_at', 'accepted_at',
            'upload_status', 'upload_error_message', 'candidate_id', 'authorization_id',
            'course_id'  -- not sent; it follows a course that is renamed
        ])
    ) as exchanged (columns)
$$;
comment on function rollbook.differs_for_export(jsonb, jsonb) is
    'Whether two versions of a candidate or an authorization differ in what is exported.';
