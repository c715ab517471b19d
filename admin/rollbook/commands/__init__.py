"""One module a noun: parse, one query, render."""
