"""Accounts, registrations, groups, changes, enrollments, the discussion outbox."""
