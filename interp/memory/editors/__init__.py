"""The editors, one method per file, under one signature."""
