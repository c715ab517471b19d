-- exchange_file_status: the files to and from the test centre, with the outcomes of their rows. An unanswered row of an
-- exported file is waiting until its record is sent again; then it waits in the later file.
-- Security: security_invoker: whoever may read the exchange tables and the portal's.
create or replace view rollbook.exchange_file_status with (security_invoker = true) as
select
    f.id as batch,
    f.direction,
    f.at,
    f.kind,
    f.name as file,
    f.archive,
    f.rows,
    f.set_aside,
    n.accepted,
    n.rejected,
    case f.kind
        when 'cdd' then (
            select count(*)
            from rollbook.exchange_row as r
            inner join portal.student_testcenteruser as c on c.id = r.record_id
            where r.file_id = f.id and r.outcome = 'sent' and c.uploaded_at = f.at
        )
        when 'ead' then (
            select count(*)
            from rollbook.exchange_row as r
            inner join portal.student_testcenterregistration as c on c.id = r.record_id
            where r.file_id = f.id and r.outcome = 'sent' and c.uploaded_at = f.at
        )
        else 0
    end as waiting,
    f.sha256,
    f.actor
from rollbook.exchange_file as f
cross join lateral (
    select
        count(*) filter (where r.outcome = 'accepted') as accepted,
        count(*) filter (where r.outcome = 'rejected') as rejected
    from rollbook.exchange_row as r
    where r.file_id = f.id
) as n;
comment on view rollbook.exchange_file_status is 'Files to and from the test centre, with the outcomes of their rows.';
comment on column rollbook.exchange_file_status.batch is 'The id of the file.';
comment on column rollbook.exchange_file_status.direction is 'out: to the test centre; in: from it.';
comment on column rollbook.exchange_file_status.at is 'When it was written or read.';
comment on column rollbook.exchange_file_status.kind is 'cdd, ead, vcdc or eac.';
comment on column rollbook.exchange_file_status.file is 'The name of the file.';
comment on column rollbook.exchange_file_status.archive is 'The archive that contained it; null for an exported file.';
comment on column rollbook.exchange_file_status.rows is 'Number of rows, without the header.';
comment on column rollbook.exchange_file_status.set_aside is 'Number of records that could not be written.';
comment on column rollbook.exchange_file_status.accepted is 'Number of rows that Pearson accepted.';
comment on column rollbook.exchange_file_status.rejected is 'Number of rows that Pearson rejected.';
comment on column rollbook.exchange_file_status.waiting is 'Number of unanswered rows whose record was not sent again.';
comment on column rollbook.exchange_file_status.sha256 is 'SHA-256 of its content.';
comment on column rollbook.exchange_file_status.actor is 'Who exported or imported it.';
