"""The `interp` command: one file per verb, and what the verbs share."""
