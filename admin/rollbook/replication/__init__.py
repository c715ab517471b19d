"""Courses and the servers that hold them: copies, verify, repair, native logical replication."""
