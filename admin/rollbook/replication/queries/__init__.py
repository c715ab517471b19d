"""The SQL of this wing: each function sends one statement, or a few that belong together."""
