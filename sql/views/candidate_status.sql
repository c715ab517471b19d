-- candidate_status: candidates for the test centre with their account, and their states by exports and answers.
-- Security: security_invoker: whoever may read the portal's tables.
create or replace view rollbook.candidate_status with (security_invoker = true) as
select
    c.id, c.user_id, c.created_at, c.updated_at, c.user_updated_at, c.client_candidate_id, c.first_name,
    c.last_name, c.middle_name, c.suffix, c.salutation, c.address_1, c.address_2, c.address_3, c.city, c.state,
    c.postal_code, c.country, c.phone, c.extension, c.phone_country_code, c.fax, c.fax_country_code,
    c.company_name, c.uploaded_at, c.processed_at, c.upload_status, c.upload_error_message, c.candidate_id,
    c.confirmed_at,
    u.username,
    u.email,
    coalesce(u.name, '') as name,
    w.is_due as needs_uploading,
    case c.upload_status when 'Accepted' then 'Accepted' when 'Error' then 'Rejected' else 'Pending' end
        as demographics_status,
    case
        when w.is_due then 'due'
        when c.upload_status = 'Accepted' then 'accepted'
        when c.upload_status = 'Error' then 'rejected'
        else 'sent'
    end as progress
from portal.student_testcenteruser as c
cross join lateral rollbook.account(c.user_id) as u
cross join lateral (select c.uploaded_at is null or c.uploaded_at < c.user_updated_at as is_due) as w;
comment on view rollbook.candidate_status is 'Candidates for the test centre, with their states.';
comment on column rollbook.candidate_status.id is 'Key of the candidate.';
comment on column rollbook.candidate_status.user_id is 'The account; at most one candidate each.';
comment on column rollbook.candidate_status.created_at is 'When the row was created.';
comment on column rollbook.candidate_status.updated_at is 'Time of the latest change by anyone, imports included.';
comment on column rollbook.candidate_status.user_updated_at is
    'Time of the latest change by the user; later than uploaded_at = due.';
comment on column rollbook.candidate_status.client_candidate_id is
    'The candidate''s id in files: edX and 12 digits.';
comment on column rollbook.candidate_status.first_name is 'Given name as on the identity document.';
comment on column rollbook.candidate_status.last_name is 'Family name as on the identity document.';
comment on column rollbook.candidate_status.middle_name is 'Middle name; may be empty.';
comment on column rollbook.candidate_status.suffix is 'What follows the name, such as Jr.; may be empty.';
comment on column rollbook.candidate_status.salutation is 'Form of address, such as Dr.; may be empty.';
comment on column rollbook.candidate_status.address_1 is 'Street address, first line.';
comment on column rollbook.candidate_status.address_2 is 'Street address, second line; may be empty.';
comment on column rollbook.candidate_status.address_3 is 'Street address, third line; may be empty.';
comment on column rollbook.candidate_status.city is 'City or town.';
comment on column rollbook.candidate_status.state is 'State or province code; needed in USA and CAN.';
comment on column rollbook.candidate_status.postal_code is 'Postal code; needed in USA and CAN.';
comment on column rollbook.candidate_status.country is 'Country, ISO 3166-1 alpha-3.';
comment on column rollbook.candidate_status.phone is 'Telephone number without country code.';
comment on column rollbook.candidate_status.extension is 'Telephone extension; may be empty.';
comment on column rollbook.candidate_status.phone_country_code is 'Country code to dial for the telephone.';
comment on column rollbook.candidate_status.fax is 'Fax number; may be empty.';
comment on column rollbook.candidate_status.fax_country_code is
    'Country code to dial for the fax; needed with a fax number.';
comment on column rollbook.candidate_status.company_name is 'Employer; may be empty.';
comment on column rollbook.candidate_status.uploaded_at is 'Time of the latest export to Pearson; null = never sent.';
comment on column rollbook.candidate_status.processed_at is
    'The date of Pearson''s answer; null = no answer.';
comment on column rollbook.candidate_status.upload_status is 'Pearson''s answer, Accepted or Error; empty = pending.';
comment on column rollbook.candidate_status.upload_error_message is 'Pearson''s reason for a rejection; else empty.';
comment on column rollbook.candidate_status.candidate_id is 'Pearson''s id of the candidate; null = not known.';
comment on column rollbook.candidate_status.confirmed_at is
    'When Pearson''s answer was imported; null = no answer.';
comment on column rollbook.candidate_status.username is 'The username.';
comment on column rollbook.candidate_status.email is 'The e-mail address of the account, which the file contains.';
comment on column rollbook.candidate_status.name is 'The profile''s name.';
comment on column rollbook.candidate_status.needs_uploading is
    'Whether the next export sends it: never sent, or changed since.';
comment on column rollbook.candidate_status.demographics_status is
    'The test centre''s answer: Accepted, Rejected or Pending.';
comment on column rollbook.candidate_status.progress is
    'due (to be sent), sent (unanswered), accepted or rejected.';
