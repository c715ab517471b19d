-- schema: schema rollbook. Part of revision 0002. Locks: new schema only.
create schema rollbook;
comment on schema rollbook is 'Rollbook: which student is copied to which course, and the machinery that does it.';
