"""What an edit did: every measure before and after, with its controls."""
