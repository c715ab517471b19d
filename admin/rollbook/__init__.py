"""Rollbook's command line: parse, call one query, render."""
