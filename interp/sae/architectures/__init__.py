"""The architectures of sparse dictionaries, one per file, and their registry."""
