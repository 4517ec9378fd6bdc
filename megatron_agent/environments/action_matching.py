"""The nearest permitted action to what a model wrote, by BLEU, as AgentTuning's evaluator finds it."""

import math
from collections.abc import Sequence

LEAST_BLEU = 0.01
LONGEST_ORDER = 4


def match_action(text: str, admissible: Sequence[str]) -> str | None:
    """Return `text` if it is admissible, else the admissible action with the highest BLEU score, or None.

    BLEU is nltk's `sentence_bleu` with smoothing method 4 over blank-separated words, the admissible action being the
    reference; it must exceed 0.01. The first of equal scores wins.
    Source: AgentTuning, `AgentBench.old/src/tasks/alfworld/utils.py`.
    """
    if text in admissible:
        return text
    words = text.split()
    known = set(words)
    candidates = [(action, action.split()) for action in admissible]
    candidates = [(a, reference) for a, reference in candidates if known.intersection(reference)]
    candidates = [(a, reference) for a, reference in candidates if not _hopeless(len(words), len(reference))]
    if not candidates:
        return None
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method4
    scores = [sentence_bleu([reference], words, smoothing_function=smoothing) for _, reference in candidates]
    best = max(scores)
    return candidates[scores.index(best)][0] if best > LEAST_BLEU else None


def _hopeless(words: int, reference: int) -> bool:
    """Whether a text is too long for any score above 0.01.

    No precision exceeds `max(reference, log(words) / 10) / (words - 3)`: at most `reference` n-grams match, and a
    smoothed count is at most `log(words) / 10`.
    """
    n_grams = words - LONGEST_ORDER + 1
    return n_grams > 0 and max(reference, math.log(words) / 10) <= LEAST_BLEU * n_grams
