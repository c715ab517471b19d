"""The test centre: what a candidate and an authorization may be, their states, exams, and the files exchanged.

Locks: ACCESS EXCLUSIVE on portal.student_testcenteruser and student_testcenterregistration, for columns, defaults, the
unique index and the indexes that go; authorizations that were accepted are marked so, no other row is written. SHARE
ROW EXCLUSIVE on portal.auth_user for the trigger.
Rows that stand there already are not judged: `rollbook candidate check` does that. Where a candidate has two
authorizations for one exam the upgrade stops and names them.
"""

from rollbook.core.migrating import apply_frozen, run_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A new id needs no look at the others: of 10^12 numbers from a secure source two are hardly ever the same, and the
# unique constraint is the judge.
RECORDS = """
alter table portal.student_testcenteruser
    alter client_candidate_id set default 'edX' || lpad(
        (1 + mod(('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint, 999999999999))::text,
        12, '0'
    );
alter table portal.student_testcenterregistration
    alter client_authorization_id set default 'edXexam' || lpad(
        (1 + mod(('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint, 999999999999))::text,
        12, '0'
    ),
    alter accommodation_code type varchar(128),
    add column accepted_at timestamptz,
    add column cancelled_at timestamptz;
update portal.student_testcenterregistration
set accepted_at = coalesce(processed_at, confirmed_at, uploaded_at) where upload_status = 'Accepted';
create unique index student_testcenterregistration_exam_key
    on portal.student_testcenterregistration (testcenter_user_id, course_id, exam_series_code)
    where cancelled_at is null;
comment on column portal.student_testcenterregistration.accepted_at is
    'When the test centre last accepted it; null: it does not know it.';
comment on column portal.student_testcenterregistration.cancelled_at is 'When it was cancelled; null: it stands.';
"""

# Without these a stamp or an answer of the test centre is a HOT update, 100,000 of them at a time. What is due, or
# waits for an answer, is found by a scan, once a day.
STAMPS = ("updated_at", "user_updated_at", "uploaded_at", "processed_at", "upload_status", "confirmed_at")
STAMPED = {"student_testcenteruser": "candidate_id", "student_testcenterregistration": "authorization_id"}
INDEXED = [(table, column) for table, number in STAMPED.items() for column in (*STAMPS, number)]

COUNTRIES = """
create table rollbook.country (code varchar(3) primary key, name text not null);
comment on table rollbook.country is 'The countries of ISO 3166-1.';
comment on column rollbook.country.code is 'The alpha-3 code.';
comment on column rollbook.country.name is 'The common name in English.';
insert into rollbook.country (code, name) values
    ('ABW', 'Aruba'), ('AFG', 'Afghanistan'), ('AGO', 'Angola'), ('AIA', 'Anguilla'), ('ALA', 'Åland Islands'),
    ('ALB', 'Albania'), ('AND', 'Andorra'), ('ARE', 'United Arab Emirates'), ('ARG', 'Argentina'),
    ('ARM', 'Armenia'), ('ASM', 'American Samoa'), ('ATA', 'Antarctica'), ('ATF', 'French Southern Territories'),
    ('ATG', 'Antigua and Barbuda'), ('AUS', 'Australia'), ('AUT', 'Austria'), ('AZE', 'Azerbaijan'),
    ('BDI', 'Burundi'), ('BEL', 'Belgium'), ('BEN', 'Benin'), ('BES', 'Bonaire, Sint Eustatius and Saba'),
    ('BFA', 'Burkina Faso'), ('BGD', 'Bangladesh'), ('BGR', 'Bulgaria'), ('BHR', 'Bahrain'), ('BHS', 'Bahamas'),
    ('BIH', 'Bosnia and Herzegovina'), ('BLM', 'Saint Barthélemy'), ('BLR', 'Belarus'), ('BLZ', 'Belize'),
    ('BMU', 'Bermuda'), ('BOL', 'Bolivia'), ('BRA', 'Brazil'), ('BRB', 'Barbados'), ('BRN', 'Brunei Darussalam'),
    ('BTN', 'Bhutan'), ('BVT', 'Bouvet Island'), ('BWA', 'Botswana'), ('CAF', 'Central African Republic'),
    ('CAN', 'Canada'), ('CCK', 'Cocos (Keeling) Islands'), ('CHE', 'Switzerland'), ('CHL', 'Chile'),
    ('CHN', 'China'), ('CIV', 'Côte d''Ivoire'), ('CMR', 'Cameroon'),
    ('COD', 'Congo, The Democratic Republic of the'), ('COG', 'Congo'), ('COK', 'Cook Islands'),
    ('COL', 'Colombia'), ('COM', 'Comoros'), ('CPV', 'Cabo Verde'), ('CRI', 'Costa Rica'), ('CUB', 'Cuba'),
    ('CUW', 'Curaçao'), ('CXR', 'Christmas Island'), ('CYM', 'Cayman Islands'), ('CYP', 'Cyprus'),
    ('CZE', 'Czechia'), ('DEU', 'Germany'), ('DJI', 'Djibouti'), ('DMA', 'Dominica'), ('DNK', 'Denmark'),
    ('DOM', 'Dominican Republic'), ('DZA', 'Algeria'), ('ECU', 'Ecuador'), ('EGY', 'Egypt'), ('ERI', 'Eritrea'),
    ('ESH', 'Western Sahara'), ('ESP', 'Spain'), ('EST', 'Estonia'), ('ETH', 'Ethiopia'), ('FIN', 'Finland'),
    ('FJI', 'Fiji'), ('FLK', 'Falkland Islands (Malvinas)'), ('FRA', 'France'), ('FRO', 'Faroe Islands'),
    ('FSM', 'Micronesia, Federated States of'), ('GAB', 'Gabon'), ('GBR', 'United Kingdom'), ('GEO', 'Georgia'),
    ('GGY', 'Guernsey'), ('GHA', 'Ghana'), ('GIB', 'Gibraltar'), ('GIN', 'Guinea'), ('GLP', 'Guadeloupe'),
    ('GMB', 'Gambia'), ('GNB', 'Guinea-Bissau'), ('GNQ', 'Equatorial Guinea'), ('GRC', 'Greece'),
    ('GRD', 'Grenada'), ('GRL', 'Greenland'), ('GTM', 'Guatemala'), ('GUF', 'French Guiana'), ('GUM', 'Guam'),
    ('GUY', 'Guyana'), ('HKG', 'Hong Kong'), ('HMD', 'Heard Island and McDonald Islands'), ('HND', 'Honduras'),
    ('HRV', 'Croatia'), ('HTI', 'Haiti'), ('HUN', 'Hungary'), ('IDN', 'Indonesia'), ('IMN', 'Isle of Man'),
    ('IND', 'India'), ('IOT', 'British Indian Ocean Territory'), ('IRL', 'Ireland'), ('IRN', 'Iran'),
    ('IRQ', 'Iraq'), ('ISL', 'Iceland'), ('ISR', 'Israel'), ('ITA', 'Italy'), ('JAM', 'Jamaica'), ('JEY', 'Jersey'),
    ('JOR', 'Jordan'), ('JPN', 'Japan'), ('KAZ', 'Kazakhstan'), ('KEN', 'Kenya'), ('KGZ', 'Kyrgyzstan'),
    ('KHM', 'Cambodia'), ('KIR', 'Kiribati'), ('KNA', 'Saint Kitts and Nevis'), ('KOR', 'South Korea'),
    ('KWT', 'Kuwait'), ('LAO', 'Laos'), ('LBN', 'Lebanon'), ('LBR', 'Liberia'), ('LBY', 'Libya'),
    ('LCA', 'Saint Lucia'), ('LIE', 'Liechtenstein'), ('LKA', 'Sri Lanka'), ('LSO', 'Lesotho'),
    ('LTU', 'Lithuania'), ('LUX', 'Luxembourg'), ('LVA', 'Latvia'), ('MAC', 'Macao'),
    ('MAF', 'Saint Martin (French part)'), ('MAR', 'Morocco'), ('MCO', 'Monaco'), ('MDA', 'Moldova'),
    ('MDG', 'Madagascar'), ('MDV', 'Maldives'), ('MEX', 'Mexico'), ('MHL', 'Marshall Islands'),
    ('MKD', 'North Macedonia'), ('MLI', 'Mali'), ('MLT', 'Malta'), ('MMR', 'Myanmar'), ('MNE', 'Montenegro'),
    ('MNG', 'Mongolia'), ('MNP', 'Northern Mariana Islands'), ('MOZ', 'Mozambique'), ('MRT', 'Mauritania'),
    ('MSR', 'Montserrat'), ('MTQ', 'Martinique'), ('MUS', 'Mauritius'), ('MWI', 'Malawi'), ('MYS', 'Malaysia'),
    ('MYT', 'Mayotte'), ('NAM', 'Namibia'), ('NCL', 'New Caledonia'), ('NER', 'Niger'), ('NFK', 'Norfolk Island'),
    ('NGA', 'Nigeria'), ('NIC', 'Nicaragua'), ('NIU', 'Niue'), ('NLD', 'Netherlands'), ('NOR', 'Norway'),
    ('NPL', 'Nepal'), ('NRU', 'Nauru'), ('NZL', 'New Zealand'), ('OMN', 'Oman'), ('PAK', 'Pakistan'),
    ('PAN', 'Panama'), ('PCN', 'Pitcairn'), ('PER', 'Peru'), ('PHL', 'Philippines'), ('PLW', 'Palau'),
    ('PNG', 'Papua New Guinea'), ('POL', 'Poland'), ('PRI', 'Puerto Rico'), ('PRK', 'North Korea'),
    ('PRT', 'Portugal'), ('PRY', 'Paraguay'), ('PSE', 'Palestine, State of'), ('PYF', 'French Polynesia'),
    ('QAT', 'Qatar'), ('REU', 'Réunion'), ('ROU', 'Romania'), ('RUS', 'Russian Federation'), ('RWA', 'Rwanda'),
    ('SAU', 'Saudi Arabia'), ('SDN', 'Sudan'), ('SEN', 'Senegal'), ('SGP', 'Singapore'),
    ('SGS', 'South Georgia and the South Sandwich Islands'),
    ('SHN', 'Saint Helena, Ascension and Tristan da Cunha'), ('SJM', 'Svalbard and Jan Mayen'),
    ('SLB', 'Solomon Islands'), ('SLE', 'Sierra Leone'), ('SLV', 'El Salvador'), ('SMR', 'San Marino'),
    ('SOM', 'Somalia'), ('SPM', 'Saint Pierre and Miquelon'), ('SRB', 'Serbia'), ('SSD', 'South Sudan'),
    ('STP', 'Sao Tome and Principe'), ('SUR', 'Suriname'), ('SVK', 'Slovakia'), ('SVN', 'Slovenia'),
    ('SWE', 'Sweden'), ('SWZ', 'Eswatini'), ('SXM', 'Sint Maarten (Dutch part)'), ('SYC', 'Seychelles'),
    ('SYR', 'Syria'), ('TCA', 'Turks and Caicos Islands'), ('TCD', 'Chad'), ('TGO', 'Togo'), ('THA', 'Thailand'),
    ('TJK', 'Tajikistan'), ('TKL', 'Tokelau'), ('TKM', 'Turkmenistan'), ('TLS', 'Timor-Leste'), ('TON', 'Tonga'),
    ('TTO', 'Trinidad and Tobago'), ('TUN', 'Tunisia'), ('TUR', 'Türkiye'), ('TUV', 'Tuvalu'), ('TWN', 'Taiwan'),
    ('TZA', 'Tanzania'), ('UGA', 'Uganda'), ('UKR', 'Ukraine'), ('UMI', 'United States Minor Outlying Islands'),
    ('URY', 'Uruguay'), ('USA', 'United States'), ('UZB', 'Uzbekistan'), ('VAT', 'Holy See (Vatican City State)'),
    ('VCT', 'Saint Vincent and the Grenadines'), ('VEN', 'Venezuela'), ('VGB', 'Virgin Islands, British'),
    ('VIR', 'Virgin Islands, U.S.'), ('VNM', 'Vietnam'), ('VUT', 'Vanuatu'), ('WLF', 'Wallis and Futuna'),
    ('WSM', 'Samoa'), ('YEM', 'Yemen'), ('ZAF', 'South Africa'), ('ZMB', 'Zambia'), ('ZWE', 'Zimbabwe');
"""

EXAMS = r"""
create table rollbook.exam (
    course_id text not null constraint exam_course_id_check check (course_id <> ''),
    exam_series_code text not null constraint exam_exam_series_code_check check (
        exam_series_code <> '' and length(exam_series_code) <= 15
        and exam_series_code !~ '[^\u0020-\u007e\u00a0-\u00ff]'
    ),
    name text not null,
    display_name text not null,
    first_appointment timestamptz not null,
    last_appointment timestamptz not null,
    registration_start timestamptz not null,
    registration_end timestamptz not null,
    primary key (course_id, exam_series_code),
    constraint exam_appointments_check check (first_appointment <= last_appointment),
    constraint exam_registration_check check (registration_start <= registration_end),
    constraint exam_registration_end_check check (registration_end <= last_appointment)
);
comment on table rollbook.exam is 'The exams of courses that are sat at a test centre.';
comment on column rollbook.exam.course_id is 'The course.';
comment on column rollbook.exam.exam_series_code is 'The test centre''s code of the exam.';
comment on column rollbook.exam.name is 'What the course''s policy calls it.';
comment on column rollbook.exam.display_name is 'What students read.';
comment on column rollbook.exam.first_appointment is 'From when on it can be sat.';
comment on column rollbook.exam.last_appointment is 'Until when it can be sat.';
comment on column rollbook.exam.registration_start is 'From when on students may register.';
comment on column rollbook.exam.registration_end is 'Until when students may register.';
"""

EXCHANGE = """
create table rollbook.exchange_file (
    id bigint generated always as identity primary key,
    direction text not null constraint exchange_file_direction_word check (direction in ('out', 'in')),
    kind text not null constraint exchange_file_kind_word check (kind in ('cdd', 'ead', 'vcdc', 'eac')),
    name text not null,
    archive text,
    at timestamptz not null default clock_timestamp(),
    rows integer not null default 0,
    set_aside integer not null default 0,
    sha256 text,
    actor text not null,
    role text not null default session_user
);
create unique index on rollbook.exchange_file (name) where direction = 'out';
comment on table rollbook.exchange_file is 'Every file to and from the test centre.';
comment on column rollbook.exchange_file.id is 'Its number, the batch.';
comment on column rollbook.exchange_file.direction is 'out: to the test centre; in: from it.';
comment on column rollbook.exchange_file.kind is
    'cdd: candidates, ead: authorizations; vcdc and eac: the answers to them.';
comment on column rollbook.exchange_file.name is 'Its name, without a folder; of those that went out each is another.';
comment on column rollbook.exchange_file.archive is 'The archive that it came in; null: it went out.';
comment on column rollbook.exchange_file.at is
    'Of one that went out: what its records have as uploaded_at; of an answer: when it was read.';
comment on column rollbook.exchange_file.rows is 'Its rows, without the header.';
comment on column rollbook.exchange_file.set_aside is 'Records that were due and could not be written.';
comment on column rollbook.exchange_file.sha256 is 'What its content hashes to.';
comment on column rollbook.exchange_file.actor is 'Who: ROLLBOOK_ACTOR, else the operating system''s user.';
comment on column rollbook.exchange_file.role is 'The database role that was logged in.';

create table rollbook.exchange_row (
    file_id bigint not null,
    line integer not null,
    key text not null,
    record_id bigint,
    outcome text not null,
    status text,
    message text,
    answered_at timestamptz,
    primary key (file_id, line)
);
comment on table rollbook.exchange_row is
    'Every row of every exchange file. No foreign keys: it is history, and 100,000 of them are written at once.';
comment on column rollbook.exchange_row.file_id is 'The file, of rollbook.exchange_file.';
comment on column rollbook.exchange_row.line is
    'Of an answer: its line; of a file that went out: its place in the order, set aside ones counted.';
comment on column rollbook.exchange_row.key is 'client_candidate_id or client_authorization_id.';
comment on column rollbook.exchange_row.record_id is
    'The record: id in student_testcenteruser or student_testcenterregistration; null: an answer to nothing known.';
comment on column rollbook.exchange_row.outcome is
    'Sent: sent, then accepted or rejected; or set aside. Answers: accepted, rejected, unchanged (known already), '
    'older, outdated (a newer edit waits), unknown, never sent, refused.';
comment on column rollbook.exchange_row.status is 'Pearson''s word.';
comment on column rollbook.exchange_row.message is 'Pearson''s message, or why it was set aside.';
comment on column rollbook.exchange_row.answered_at is 'When Pearson handled it, by their word.';

-- With room in the page, a stamp or an answer moves no row to another page, where every index would get an entry.
alter table portal.student_testcenteruser set (fillfactor = 50);
alter table portal.student_testcenterregistration set (fillfactor = 50);
"""

OWNED = """
alter table rollbook.country owner to rollbook_owner;
alter table rollbook.exam owner to rollbook_owner;
alter table rollbook.exchange_file owner to rollbook_owner;
alter table rollbook.exchange_row owner to rollbook_owner;
"""

AWAY = """
drop trigger rollbook_renew_candidate on portal.auth_user;
drop trigger rollbook_check_candidate_insert on portal.student_testcenteruser;
drop trigger rollbook_check_candidate_update on portal.student_testcenteruser;
drop trigger rollbook_check_authorization_insert on portal.student_testcenterregistration;
drop trigger rollbook_check_authorization_update on portal.student_testcenterregistration;
drop view rollbook.exam_status;
drop view rollbook.exchange_file_status;
drop view rollbook.authorization_status;
drop view rollbook.candidate_status;
drop function rollbook.renew_candidate();
drop function rollbook.register_for_exam(bigint, text, text, text);
drop function rollbook.candidate_draft(bigint);
drop function rollbook.check_candidate();
drop function rollbook.check_authorization();
drop function rollbook.candidate_faults(jsonb);
drop function rollbook.authorization_faults(jsonb);
drop function rollbook.accommodation_names(text);
drop function rollbook.text_fault(text, integer, boolean);
drop function rollbook.trimmed_record(jsonb);
drop table rollbook.exchange_row;
drop table rollbook.exchange_file;
alter table portal.student_testcenteruser reset (fillfactor);
alter table portal.student_testcenterregistration reset (fillfactor);
drop table rollbook.exam;
drop table rollbook.country;
drop policy rollbook_renews on portal.student_testcenteruser;
drop policy rollbook_registers on portal.student_testcenterregistration;
revoke select on portal.student_testcenterregistration from rollbook_owner;
revoke insert (
    testcenter_user_id, course_id, exam_series_code, eligibility_appointment_date_first,
    eligibility_appointment_date_last, accommodation_request
) on portal.student_testcenterregistration from rollbook_owner;
revoke select, update (user_updated_at, updated_at, upload_status) on portal.student_testcenteruser from rollbook_owner;
drop index portal.student_testcenterregistration_exam_key;
alter table portal.student_testcenterregistration
    alter client_authorization_id drop default, alter accommodation_code type varchar(64),
    drop column accepted_at, drop column cancelled_at;
alter table portal.student_testcenteruser alter client_candidate_id drop default;
"""


def upgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    for block in (RECORDS, COUNTRIES, EXAMS, EXCHANGE, OWNED):
        run_sql(block)
    for table, column in INDEXED:
        run_sql(f"drop index portal.{table}_{column}_idx")
    apply_frozen("0005")


def downgrade() -> None:
    run_sql("set local lock_timeout = '10s'")
    run_sql(AWAY)
    for table, column in INDEXED:
        run_sql(f"create index {table}_{column}_idx on portal.{table} ({column})")
