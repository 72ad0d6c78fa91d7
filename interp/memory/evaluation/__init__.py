"""What an edit did: every measure before and after, beside its controls."""
