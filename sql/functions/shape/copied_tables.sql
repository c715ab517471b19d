-- copied_tables: the portal tables that are copied to courses, in the order in which rows are inserted: parents first.
-- role: person, profile or membership. table_name: the name of the copies. relation: the portal's table, with its
-- schema, quoted for SQL. source: the rows of it that count, as SQL: the relation itself, or with the condition of the
-- membership a query in parentheses. key_column: the primary key. user_column holds the user's key: it decides in which
-- courses a row is due. course_column: of the membership, the course. index_column: indexed in copies; null = none.
-- Rendered: from the declaration of the shape.
-- Called:   wherever the tables are processed.
-- Security: INVOKER; constant.
create or replace function rollbook.copied_tables()
returns table (
    table_name text, user_column text, ordinal integer, role text, relation text, source text, key_column text,
    course_column text, index_column text
)
language sql immutable parallel safe
as $$
    values
    :copied_tables
$$;
comment on function rollbook.copied_tables() is
    'The portal tables that are copied to courses, parents first: names, role, relation, keys, the rows that count.';
