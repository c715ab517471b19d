"""A private PostgreSQL with an invented platform on it, to try Rollbook without touching anything."""
