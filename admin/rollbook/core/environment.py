"""The environment variables that Rollbook reads: one table, from which the reference is written."""

VARIABLES = {
    "ROLLBOOK_DSN": "The portal database, as with --dsn: a URI, key=value pairs, service=NAME or a database name.",
    "ROLLBOOK_CONFIG": "A configuration file, as with --config.",
    "ROLLBOOK_PROFILE": "The profile of the configuration, as with --profile.",
    "ROLLBOOK_TIMEOUT": "The default of --timeout, in seconds; not for long work.",
    "ROLLBOOK_FORMAT": "How lists are written: table, json, jsonl, csv or tsv. The ending of -o FILE wins.",
    "ROLLBOOK_PAGER": "The pager of a long answer on a terminal; it wins over PAGER. Empty: none.",
    "ROLLBOOK_ACTOR": "The person for whom you work; recorded in the history with the role and the system user.",
    "ROLLBOOK_LOG_FILE": "The file for tracebacks of bugs. Default: rollbook/rollbook.log in XDG_STATE_HOME.",
    "ROLLBOOK_DISCUSSION_URL": "The address of the discussion service. It overrides the address in the database.",
    "ROLLBOOK_DISCUSSION_API_KEY": "The key of the discussion service. It overrides the key in the database.",
    "ROLLBOOK_SECRET_KEY": "The secret for pseudonyms, if --secret-file is not used.",
    "ROLLBOOK_DEMO_DIR": "The demo's directory. Default: one in TMPDIR for each user and checkout.",
    "PGHOST, PGPORT, PGDATABASE, PGUSER, PGSERVICE, ...": "libpq's own variables. They describe the portal database "
    "only; a course server's conninfo names its host and database itself.",
    "PGAPPNAME": "The application name of sessions. Default: the command, such as `rollbook user show`.",
    "PG_BINDIR": "The directory of the PostgreSQL programs that the demo's server uses, instead of those of the wheel.",
    "XDG_CONFIG_HOME": "The directory of rollbook/config.toml, the user's configuration. Default: ~/.config.",
    "XDG_STATE_HOME": "The directory of the log file. Default: ~/.local/state.",
    "NO_COLOR": "Any value switches colour off, unless --color or the configuration says otherwise.",
    "FORCE_COLOR": "Any value switches colour on in a pipe. It draws no progress bar.",
    "COLUMNS": "The width of a table that is written into a pipe.",
    "PAGER": "The pager of a long answer on a terminal. Default: `less -FIRX`; empty: none.",
    "TERM": "`dumb` switches colour and the pager off.",
}
"""Variable -> one sentence. Names in one key share the sentence."""
