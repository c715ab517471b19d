"""The schema, its migrations and checks, the history, the demo."""
