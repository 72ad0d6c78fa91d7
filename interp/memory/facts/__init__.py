"""Facts to edit, files of them, and everything an audit asks about one."""
