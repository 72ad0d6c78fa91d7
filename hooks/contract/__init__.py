"""The contract of a model: the report of its laws, the check that measures them, and one file per group of laws."""
