"""Help for a word that was mistyped."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """What to append to the message about an unknown word: "; did you mean 'mnist'?", or nothing if none is near."""
    close = difflib.get_close_matches(word.lower(), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
