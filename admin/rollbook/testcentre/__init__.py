"""Candidates, authorizations, exams, and the files exchanged with the test centre."""
