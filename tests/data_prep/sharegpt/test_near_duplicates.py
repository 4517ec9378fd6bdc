"""MinHash against brute force: Jaccard similarity of the same shingles, over all pairs."""

import random

import numpy as np
import pytest

from data_prep.sharegpt.near_duplicates import NearDuplicateIndex, WordHashes, load_signer, shingle_hashes
from megatron_agent.errors import UserError
from tests.data_prep.test_import_agentinstruct import forbid_import

pytest.importorskip("datasketch", reason="near duplicates need datasketch (extra sharegpt)")


def shingles(text: str) -> set[tuple[str, ...]]:
    """Runs of five words, the slow way."""
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def jaccard(a: str, b: str) -> float:
    return overlap(shingles(a), shingles(b))


def overlap(first: set[tuple[str, ...]], second: set[tuple[str, ...]]) -> float:
    return len(first & second) / len(first | second)


def corpus() -> list[str]:
    """Random texts, each followed by copies with more and more words changed."""
    generator = random.Random(0)
    vocabulary = [f"w{i}" for i in range(3000)]
    texts = []
    for _ in range(40):
        words = generator.choices(vocabulary, k=generator.randrange(30, 300))
        texts.append(" ".join(words))
        for share in (0.0, 0.002, 0.01, 0.03, 0.2):
            copy = [generator.choice(vocabulary) if generator.random() < share else word for word in words]
            texts.append(" ".join(copy))
    return texts


def test_found_as_by_brute_force() -> None:
    """Walk through the texts as the cleaner does; each verdict must agree with exact Jaccard outside the noise."""
    texts = corpus()
    sign = load_signer()
    index = NearDuplicateIndex(0.8)
    kept: list[set[tuple[str, ...]]] = []
    errors = []
    sure = {True: 0, False: 0}
    for text in texts:
        signature = sign(text)
        found = index.find(signature)
        own = shingles(text)
        exact = [overlap(own, other) for other in kept]
        best = max(exact, default=0.0)
        if best > 0.92 or best < 0.68:  # three standard errors from the threshold
            assert (found is not None) == (best > 0.8), best
            sure[found is not None] += 1
        if found is None:
            index.add(signature)
            kept.append(own)
        else:
            errors.append(found[1] - exact[found[0]])
    assert sure[True] > 50
    assert sure[False] > 50
    assert abs(float(np.mean(errors))) < 0.02
    assert max(map(abs, errors)) < 0.15
    assert index.count == len(kept)


def test_the_estimate_is_unbiased() -> None:
    generator = random.Random(1)
    sign = load_signer()
    errors = []
    for _ in range(60):
        words = [f"v{generator.randrange(10_000)}" for _ in range(400)]
        other = [word if generator.random() > 0.03 else "changed" + word for word in words]
        a, b = " ".join(words), " ".join(other)
        errors.append(float((sign(a) == sign(b)).mean()) - jaccard(a, b))
    assert abs(float(np.mean(errors))) < 0.02  # 60 estimates of standard error 0.044


def test_hashes_are_those_of_the_shingle_sets() -> None:
    hashes = WordHashes()
    for text in corpus()[:50]:
        assert len(shingle_hashes(text, hashes)) == len(shingles(text))
    assert set(shingle_hashes("a b c d e f", hashes)) > set(shingle_hashes("A B  c\nd e", hashes))
    assert len(shingle_hashes("one two", hashes)) == 1
    assert len(shingle_hashes(" ", hashes)) == 0
    assert len(shingle_hashes("天気がいいから散歩", hashes)) == 5  # no blanks: a character is a word


def test_growing_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    index = NearDuplicateIndex(0.8)
    signatures = generator.integers(0, 1 << 32, size=(3000, 128), dtype=np.uint32)
    for signature in signatures:
        assert index.find(signature) is None
        index.add(signature)
    for number in (0, 1023, 1024, 2047, 2048, 2999):
        changed = signatures[number].copy()
        changed[:20] += 1
        assert index.find(changed) == (number, 108 / 128)
        changed[20:40] += 1
        assert index.find(changed) is None
    assert index.find(signatures[7]) == (7, 1.0)


def test_a_crowded_bucket_hides_nothing() -> None:
    """Texts that open alike share buckets: far more of them than the steps that are taken along a chain."""
    generator = np.random.default_rng(1)
    index = NearDuplicateIndex(0.8)
    shared = generator.integers(0, 1 << 32, size=90, dtype=np.uint32)  # 90 of 128: under the threshold
    for number in range(400):
        signature = np.concatenate([shared, generator.integers(0, 1 << 32, size=38, dtype=np.uint32)])
        if number == 3:
            early = signature.copy()
        assert index.find(signature) is None
        index.add(signature)
    early[:10] += 1
    assert index.find(early) == (3, 118 / 128)


def test_the_earliest_of_equals_is_named() -> None:
    index = NearDuplicateIndex(0.8)
    signature = np.arange(128, dtype=np.uint32)
    for _ in range(3):
        index.add(signature)
    assert index.find(signature) == (0, 1.0)


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_import(monkeypatch, "datasketch")
    with pytest.raises(UserError, match=r"agentlm-megatron\[sharegpt\]'.*--skip-rule near_duplicate"):
        load_signer()
