"""MySQL 8's comparison of text for SQLite: `utf8mb4_0900_ai_ci` ignores case and accents, not blanks.

Equality is the Unicode Collation Algorithm's at its first level, order the one of its default table for ASCII and,
roughly, for the rest (symbols before digits before letters). Checked against MariaDB's `uca1400_nopad_ai_ci`.
"""

import re
import unicodedata
from functools import lru_cache

NAME = "utf8mb4_0900_ai_ci"
_CACHED_LENGTH = 256  # characters; longer texts are folded every time

_ORDER = "\t\n\x0b\x0c\r\x85 _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$\x7f0123456789abcdefghijklmnopqrstuvwxyz"
_SYMBOL = chr(_ORDER.index("\x7f"))  # what opens any symbol beyond ASCII
_KEYS = {character: chr(index) for index, character in enumerate(_ORDER)}
# Letters whose first weight is that of another letter, though Unicode does not decompose them.
_LETTERS = {"ø": "o", "đ": "d", "ð": "d", "ł": "l", "ħ": "h", "æ": "ae", "œ": "oe", "ґ": "г"}
# What the collation takes otherwise than Unicode's decomposition.
_WHOLE = {"й": "й", "Й": "й", "ŀ": "l", "Ŀ": "l", "΅": "¨", "΄": "´", "ͺ": "ι"}
_IGNORED_ASCII = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


def compare(left: str, right: str) -> int:
    """Return -1, 0 or 1 as `left` sorts before, with or after `right`."""
    if left == right:
        return 0
    first, second = _sort_key(left), _sort_key(right)
    return (first > second) - (first < second)


def fold(text: str) -> str:
    """Return `text` such that two texts the collation holds equal become the same."""
    return _cached_fold(text) if len(text) <= _CACHED_LENGTH else _fold(text)


def like(pattern: str, text: str, escape: str = "\\") -> bool:
    """MySQL's LIKE: `%` any characters, `_` one; `escape` takes either literally. Letter by letter: ß is not ss."""
    folded = _fold_letters(text)
    pieces = _like_pieces(_fold_letters(pattern), escape)
    (first, _), *middle = pieces[:-1] or pieces
    last, length = pieces[-1]
    if len(pieces) == 1:
        return first.fullmatch(folded) is not None
    found = first.match(folded)
    for piece, _ in middle:  # the first place where a piece fits leaves most for those behind it
        if found is None:
            return False
        found = piece.search(folded, found.end())
    start = len(folded) - length
    return found is not None and start >= found.end() and last.fullmatch(folded, start) is not None


def _fold_letters(text: str) -> str:
    """Fold each character for itself; one that the collation takes as none or as several stays."""
    if text.isascii():
        return text.lower()
    return "".join(one if len(one := _fold_character(character)) == 1 else character for character in text)


def _sort_key(text: str) -> str:
    return _cached_sort_key(text) if len(text) <= _CACHED_LENGTH else _make_sort_key(text)


def _make_sort_key(text: str) -> str:
    return "".join(_KEYS.get(character) or _key_beyond_ascii(character) for character in fold(text))


def _fold(text: str) -> str:
    if text.isascii():
        return _IGNORED_ASCII.sub("", text).lower()
    return "".join(map(_fold_character, text))


_cached_sort_key = lru_cache(maxsize=4096)(_make_sort_key)
_cached_fold = lru_cache(maxsize=4096)(_fold)


@lru_cache(maxsize=4096)
def _fold_character(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Mn", "Me"):
        return character if character in _KEYS and character != "\x7f" else ""
    if character in _WHOLE:
        return _WHOLE[character]
    parts = unicodedata.normalize("NFKD", character)
    if len(parts) > 1 and parts[0] == " ":  # an accent that stands alone is a symbol
        return character
    letters = "".join(part for part in parts if not unicodedata.combining(part)).casefold()
    return "".join(_LETTERS.get(letter, letter) for letter in letters)


@lru_cache(maxsize=4096)
def _key_beyond_ascii(character: str) -> str:
    return _SYMBOL + character if unicodedata.category(character)[0] in "PSZ" else character


@lru_cache(maxsize=256)
def _like_pieces(pattern: str, escape: str) -> tuple[tuple[re.Pattern[str], int], ...]:
    """Return what stands between the `%`: an expression each, and how many characters it takes."""
    pieces: list[list[str]] = [[]]
    escaped = False
    for character in pattern:
        if escaped or character not in (escape, "%", "_"):
            pieces[-1].append(re.escape(character))
            escaped = False
        elif character == escape:
            escaped = True
        elif character == "%":
            pieces.append([])
        else:
            pieces[-1].append(".")
    if escaped:
        pieces[-1].append(re.escape(escape))
    return tuple((re.compile("".join(piece), re.DOTALL), len(piece)) for piece in pieces)
