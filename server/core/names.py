"""What a channel may be called: wherever a name comes from, it is judged here."""


def name_fault(name: str, longest: int) -> str | None:
    """Say what is wrong with a channel's name, in a few words that do not quote it; None when nothing is.

    `longest` is in characters. Any printable characters but spaces will do.
    """
    if not name:
        return "is empty"
    if len(name) > longest:
        return f"is longer than {longest} characters"
    # Of all the spaces there are only this one counts as printable.
    if not name.isprintable() or " " in name:
        return "has spaces or control characters"
    return None
