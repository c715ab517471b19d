-- The tables of a Moodle-like platform on PostgreSQL: bigint keys from sequences, 0 and 1 instead of booleans, seconds
-- instead of times, no foreign keys. mdl_enrol and mdl_user_enrolments are Moodle's; docs/shape.md makes
-- mdl_course_member of them.
create table mdl_user (
    id bigserial primary key,
    auth varchar(20) not null default 'manual',
    confirmed smallint not null default 0,
    deleted smallint not null default 0,
    suspended smallint not null default 0,
    mnethostid bigint not null default 0,
    username varchar(100) not null default '',
    password varchar(255) not null default '',
    idnumber varchar(255) not null default '',
    firstname varchar(100) not null default '',
    lastname varchar(100) not null default '',
    email varchar(100) not null default '',
    country varchar(2) not null default '',
    lang varchar(30) not null default 'en',
    timezone varchar(100) not null default '99',
    lastaccess bigint not null default 0,
    lastlogin bigint not null default 0,
    currentlogin bigint not null default 0,
    secret varchar(15) not null default '',
    description text,
    timecreated bigint not null default 0,
    timemodified bigint not null default 0
);
create unique index mdl_user_mneuse_uix on mdl_user (mnethostid, username);
create index mdl_user_del_ix on mdl_user (deleted);
create index mdl_user_ema_ix on mdl_user (email);
create index mdl_user_las3_ix on mdl_user (lastaccess);

create table mdl_enrol (
    id bigserial primary key,
    enrol varchar(20) not null default '',
    status bigint not null default 0,
    courseid bigint not null
);
create index mdl_enro_cou_ix on mdl_enrol (courseid);

create table mdl_user_enrolments (
    id bigserial primary key,
    status bigint not null default 0,
    enrolid bigint not null,
    userid bigint not null,
    timestart bigint not null default 0,
    timeend bigint not null default 2147483647,
    timecreated bigint not null default 0
);
create unique index mdl_userenro_enruse_uix on mdl_user_enrolments (enrolid, userid);
create index mdl_userenro_use_ix on mdl_user_enrolments (userid);
