"""A number of things in words."""


def count_of(n: int, thing: str) -> str:
    """A number and what is counted, in the plural unless it is one.

    Examples:
        >>> count_of(1, "text"), count_of(0, "text"), count_of(2000, "text")
        ('1 text', '0 texts', '2,000 texts')
    """
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
