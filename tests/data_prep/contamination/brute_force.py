"""The definition of contamination, written down slowly."""

from collections.abc import Sequence


def brute_force(test: Sequence[int], training: Sequence[Sequence[int]], ngram: int, mismatches: int) -> list[bool]:
    """Flags of the tokens of one test text: all its windows against all training windows, token by token."""
    flags = [False] * len(test)
    for i in range(len(test) - ngram + 1):
        for text in training:
            for j in range(len(text) - ngram + 1):
                different = sum(test[i + offset] != text[j + offset] for offset in range(ngram))
                if different <= mismatches:
                    flags[i : i + ngram] = [True] * ngram
    return flags
