"""One module a noun: parse, call one function, render."""
