-- authorization_status: authorizations to sit an exam, with their states by exports and answers, and the transaction
-- type of the next file. The test centre knows an authorization that it accepted or numbered. One that was only ever
-- rejected must be sent as Add again.
-- Security: security_invoker: whoever may read the portal's tables.
create or replace view rollbook.authorization_status with (security_invoker = true) as
select
    r.id, r.testcenter_user_id, r.course_id, r.created_at, r.updated_at, r.user_updated_at,
    r.client_authorization_id, r.exam_series_code, r.eligibility_appointment_date_first,
    r.eligibility_appointment_date_last, r.accommodation_code, r.accommodation_request, r.uploaded_at,
    r.processed_at, r.upload_status, r.upload_error_message, r.authorization_id, r.confirmed_at, r.accepted_at,
    r.cancelled_at,
    c.user_id,
    u.username,
    c.client_candidate_id,
    w.is_due as needs_uploading,
    case
        when r.cancelled_at is not null then 'Delete'
        when r.authorization_id is not null or r.accepted_at is not null then 'Update'
        when r.uploaded_at is null or r.processed_at is not null then 'Add'
        when r.upload_status = 'Error' then 'Add'
        else 'Update'
    end as transaction_type,
    w.demographics as demographics_status,
    w.registration as registration_status,
    case
        when r.accommodation_request = '' then 'Skipped'
        when r.accommodation_code = '' then 'Pending'
        when r.accommodation_code = 'NONE' then 'Rejected'
        else 'Accepted'
    end as accommodation_status,
    rollbook.accommodation_names(r.accommodation_code) as accommodation_names,
    case
        when w.demographics = 'Accepted' and w.registration = 'Accepted' then 'Accepted'
        when 'Rejected' in (w.demographics, w.registration) then 'Rejected'
        else 'Pending'
    end as status,
    case
        when w.is_due then 'due'
        when w.registration = 'Rejected' then 'rejected'
        when r.cancelled_at is not null then 'cancelled'
        when w.registration = 'Accepted' then 'accepted'
        else 'sent'
    end as progress
from portal.student_testcenterregistration as r
inner join portal.student_testcenteruser as c on c.id = r.testcenter_user_id
cross join lateral rollbook.account(c.user_id) as u
cross join lateral (
    select
        case c.upload_status when 'Accepted' then 'Accepted' when 'Error' then 'Rejected' else 'Pending' end
            as demographics,
        case r.upload_status when 'Accepted' then 'Accepted' when 'Error' then 'Rejected' else 'Pending' end
            as registration,
        (r.uploaded_at is null or r.uploaded_at < r.user_updated_at)
        and (r.cancelled_at is null or r.uploaded_at is not null) as is_due
) as w;
comment on view rollbook.authorization_status is 'Authorizations to sit an exam at a test centre, with their states.';
comment on column rollbook.authorization_status.id is 'Key of the authorization.';
comment on column rollbook.authorization_status.testcenter_user_id is 'The candidate.';
comment on column rollbook.authorization_status.course_id is 'The course of the exam.';
comment on column rollbook.authorization_status.created_at is 'When the row was created.';
comment on column rollbook.authorization_status.updated_at is 'Time of the latest change by anyone, imports included.';
comment on column rollbook.authorization_status.user_updated_at is
    'Time of the latest change that Pearson must receive; later than uploaded_at = due.';
comment on column rollbook.authorization_status.client_authorization_id is
    'The authorization''s id in files: edXexam and 12 digits.';
comment on column rollbook.authorization_status.exam_series_code is 'The test centre''s code of the exam.';
comment on column rollbook.authorization_status.eligibility_appointment_date_first is
    'First day on which the exam may be sat.';
comment on column rollbook.authorization_status.eligibility_appointment_date_last is
    'Last day on which the exam may be sat; not before the first.';
comment on column rollbook.authorization_status.accommodation_code is
    'Accommodations granted, codes joined by *, or NONE = refused; empty = not decided.';
comment on column rollbook.authorization_status.accommodation_request is
    'What the student asked for, in their words; empty = nothing.';
comment on column rollbook.authorization_status.uploaded_at is
    'Time of the latest export to Pearson; null = never sent.';
comment on column rollbook.authorization_status.processed_at is
    'The date of Pearson''s answer; null = no answer.';
comment on column rollbook.authorization_status.upload_status is
    'Pearson''s answer, Accepted or Error; empty = pending.';
comment on column rollbook.authorization_status.upload_error_message is
    'Pearson''s reason for a rejection; else empty.';
comment on column rollbook.authorization_status.authorization_id is
    'Pearson''s id of the authorization; null = not known.';
comment on column rollbook.authorization_status.confirmed_at is
    'When Pearson''s answer was imported; null = no answer.';
comment on column rollbook.authorization_status.accepted_at is
    'When the test centre last accepted it; null: not known there.';
comment on column rollbook.authorization_status.cancelled_at is 'When it was cancelled; null: not cancelled.';
comment on column rollbook.authorization_status.user_id is 'The user.';
comment on column rollbook.authorization_status.username is 'The username.';
comment on column rollbook.authorization_status.client_candidate_id is 'The candidate''s id in files.';
comment on column rollbook.authorization_status.needs_uploading is
    'Whether the next export sends it: never sent, or changed since.';
comment on column rollbook.authorization_status.transaction_type is
    'The transaction type in the next file: Add, Update or Delete.';
comment on column rollbook.authorization_status.demographics_status is
    'The state of the candidate''s record: Accepted, Rejected or Pending.';
comment on column rollbook.authorization_status.registration_status is
    'The state of the authorization itself: Accepted, Rejected or Pending.';
comment on column rollbook.authorization_status.accommodation_status is
    'Skipped: none requested; else Pending, Rejected or Accepted by staff.';
comment on column rollbook.authorization_status.accommodation_names is 'The names of the accommodation codes.';
comment on column rollbook.authorization_status.status is 'Accepted: both are; Rejected: one is; else Pending.';
comment on column rollbook.authorization_status.progress is
    'due (to be sent), sent (unanswered), accepted, rejected or cancelled.';
