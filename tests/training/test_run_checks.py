"""Checks and housekeeping around a run that need no training."""

import itertools
import subprocess
import sys
import types
from pathlib import Path

import pytest

from megatron_agent.errors import UserError
from megatron_agent.files import sha256_file
from megatron_agent.model.checkpoint_folder import complete_checkpoints, remove_checkpoint, remove_leftovers
from megatron_agent.model.config import PRESETS
from megatron_agent.training.loop import seed_of_step
from megatron_agent.training.setup import check_tokenizer

LLAMA = PRESETS["llama-2-7b"]


def rows(vocab_size: int, digest: str) -> types.SimpleNamespace:
    return types.SimpleNamespace(vocab_size=vocab_size, tokenizer_sha256=digest)


def test_a_larger_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="vocabulary of 49,152 ids, the model has 32,000"):
        check_tokenizer(rows(49152, ""), LLAMA, None)


def test_another_tokenizer_of_the_same_size_is_refused(tmp_path: Path) -> None:
    """Llama-2's and Mistral's vocabularies both have 32,000 pieces."""
    (tmp_path / "tokenizer.model").write_bytes(b"the model's own")
    with pytest.raises(UserError, match="another tokenizer"):
        check_tokenizer(rows(32000, "0" * 64), LLAMA, tmp_path)
    check_tokenizer(rows(32000, sha256_file(tmp_path / "tokenizer.model")), LLAMA, tmp_path)


def test_only_checkpoints_of_ours_are_counted_and_removed(tmp_path: Path) -> None:
    for name in ("iter_0000003", "iter_0000003_best", "iter_0000010", "iter_0000005"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    (tmp_path / "iter_0000020").mkdir()  # no manifest: not complete
    (tmp_path / ".iter_0000030.tmp").mkdir()
    found = complete_checkpoints(tmp_path)
    assert [path.name for path in found] == ["iter_0000003", "iter_0000005", "iter_0000010"]
    remove_checkpoint(found[0])
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "iter_0000003_best",
        "iter_0000005",
        "iter_0000010",
        "iter_0000020",
    ]


def test_seeds_of_neighbouring_steps_are_far_apart() -> None:
    seeds = sorted(seed_of_step(1234, step) for step in range(1, 2001))
    assert min(b - a for a, b in itertools.pairwise(seeds)) > 10_000
    assert seed_of_step(1234, 1) == seed_of_step(1234, 1) != seed_of_step(1235, 1)


def test_help_does_not_import_torch() -> None:
    """What makes --help answer at once."""
    code = (
        "import sys\nfrom megatron_agent.train import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "--optimizer.lr_warmup_fraction" in result.stdout
