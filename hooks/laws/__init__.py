"""The laws a sound model keeps: within its blocks, at its ends, across runs, and of what is written."""
