"""Course servers: PostgreSQL servers that hold courses, fed by native logical replication."""
