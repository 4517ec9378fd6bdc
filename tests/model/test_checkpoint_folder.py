"""The checkpoint folder: atomic, hashed, and read without trusting pickles."""

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_agent.errors import UserError
from megatron_agent.model import checkpoint_folder as folder_module
from megatron_agent.model.checkpoint_folder import (
    MANIFEST,
    TRACKER,
    begin_checkpoint,
    commit_checkpoint,
    complete_checkpoints,
    latest_checkpoint,
    remove_checkpoint,
    remove_leftovers,
    resolve_checkpoint,
    verify_checkpoint,
)
from megatron_agent.model.checkpoint_tensors import load_model_weights, read_metadata
from tests.model.tiny import save_tiny_llama


def write_checkpoint(root: Path, iteration: int, content: str = "tensors") -> Path:
    temporary = begin_checkpoint(root, iteration)
    (temporary / "__0_0.distcp").write_text(content)
    (temporary / "hf").mkdir()
    (temporary / "hf" / "config.json").write_text("{}")
    return commit_checkpoint(temporary, root, iteration)


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    from checkpoints_convert.hf_to_megatron import convert

    save_tiny_llama(tmp_path / "hf")
    return convert(tmp_path / "hf", tmp_path / "megatron")


def test_commit_leaves_a_whole_folder_and_the_tracker(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 123)
    assert folder == tmp_path / "iter_0000123"
    assert (tmp_path / TRACKER).read_text() == "123"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iter_0000123", TRACKER]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert sorted(manifest["files"]) == ["__0_0.distcp", "hf/config.json"]
    assert manifest["files"]["__0_0.distcp"]["size"] == len("tensors")
    verify_checkpoint(folder)


def test_newest_complete_checkpoint_is_found_past_interrupted_ones(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "absent") is None
    assert latest_checkpoint(tmp_path) is None
    for iteration in (20, 100):
        write_checkpoint(tmp_path, iteration)
    begin_checkpoint(tmp_path, 120)  # killed while writing
    (tmp_path / "iter_0000130").mkdir()  # not ours: no manifest
    (tmp_path / TRACKER).write_text("20")  # killed before the tracker was replaced
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_0000100"
    assert resolve_checkpoint(tmp_path) == tmp_path / "iter_0000100"
    assert resolve_checkpoint(tmp_path / "iter_0000020") == tmp_path / "iter_0000020"


@pytest.mark.parametrize("moment", ["hash", "manifest", "rename"])
def test_killed_while_committing_leaves_the_checkpoint_before_it(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path, 1)

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    owner, name = {
        "hash": (folder_module, "sha256_file"),
        "manifest": (folder_module, "write_json"),
        "rename": (os, "rename"),
    }[moment]
    monkeypatch.setattr(owner, name, die)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path, 2)
    monkeypatch.undo()
    assert latest_checkpoint(tmp_path) == tmp_path / "iter_0000001"
    assert verify_checkpoint(write_checkpoint(tmp_path, 2)) is None  # the next attempt clears the remains
    assert not list(tmp_path.glob(".iter*"))


def test_checkpoint_of_the_same_iteration_is_replaced(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5, "old")
    folder = write_checkpoint(tmp_path, 5, "new")
    verify_checkpoint(folder)
    assert (folder / "__0_0.distcp").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iter_0000005", TRACKER]


def test_what_cannot_be_removed_is_told_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On NFS a file that a process has open keeps its folder; nothing stops because of it."""
    rmdir = os.rmdir

    def busy(path: Any, **kwargs: Any) -> None:
        if "iter_" in str(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
        rmdir(path, **kwargs)

    monkeypatch.setattr(os, "rmdir", busy)
    write_checkpoint(tmp_path, 1)
    for content in ("old", "new"):
        write_checkpoint(tmp_path, 2, content)
    assert (tmp_path / "iter_0000002" / "__0_0.distcp").read_text() == "new"
    for _ in range(2):  # of the same iteration again, beside what is left of the first
        remove_checkpoint(tmp_path / "iter_0000001")
        write_checkpoint(tmp_path, 1)
    begin_checkpoint(tmp_path, 3)
    assert list(begin_checkpoint(tmp_path, 3).iterdir()) == []
    remove_leftovers(tmp_path)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["iter_0000001", "iter_0000002"]
    left = list(tmp_path.glob(".iter_*.tmp"))
    assert len(left) == 5  # the replaced one, the removed ones, and the two begun
    output = capsys.readouterr().err
    for folder in left:
        assert f"warning: {folder} could not be removed ([Errno {errno.ENOTEMPTY}] " in output


def test_a_checkpoint_that_cannot_be_renamed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path, 1)

    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "rename", refuse)
    remove_checkpoint(folder)
    verify_checkpoint(folder)
    assert f"warning: {folder} could not be removed" in capsys.readouterr().err


def alter_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "common.pt", "hf/config.json", "run.json"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [(alter_byte, "altered (SHA-256 differs)"), (cut, "cut short?"), (os.unlink, "missing")],
)
def test_damage_is_named(damage: Callable[[Path], None], message: str, name: str, converted: Path) -> None:
    verify_checkpoint(converted)
    damage(converted / name)
    with pytest.raises(UserError) as caught:
        verify_checkpoint(converted)
    assert f"{name}: " in str(caught.value)
    assert message in str(caught.value)
    assert "restore it from a copy" in str(caught.value)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1)
    (folder / MANIFEST).write_text('{"format_version": 99, "files": {}}')
    with pytest.raises(UserError, match="expected checkpoint format 1, got 99"):
        verify_checkpoint(folder)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        verify_checkpoint(folder)


def test_a_folder_without_checkpoints_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found none; make one with"):
        resolve_checkpoint(tmp_path)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pickle_was_run",)


def test_metadata_that_names_other_classes_is_refused(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(converted)
    (converted / ".metadata").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(UserError, match=r"names (posix|nt)\.system, which no checkpoint needs"):
        read_metadata(converted)
    assert not (converted / "pickle_was_run").exists()
    (converted / ".metadata").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match="is damaged"):
        read_metadata(converted)
    (converted / ".metadata").unlink()
    with pytest.raises(UserError, match="the checkpoint is incomplete"):
        read_metadata(converted)


def test_objects_beside_tensors_are_not_unpickled(
    single_rank: None, converted: Path, build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(converted)
    model = build(converted.parents[1] / "hf")
    torch.save({"iteration": _Evil()}, converted / "common.pt")
    with pytest.raises(pickle.UnpicklingError):
        load_model_weights(model, converted)
    assert not (converted / "pickle_was_run").exists()


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"vocab_size": 512}, ["embedding.word_embeddings.weight: expected shape (512, 64), got (384, 64)"]),
        ({"num_hidden_layers": 2}, ["linear_qkv.weight: expected shape (2, 128, 64), got (4, 128, 64)"]),
        ({"hidden_size": 32, "head_dim": 16}, ["linear_fc2.weight: expected shape (4, 32, 96), got (4, 64, 96)"]),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    changes: dict[str, Any], messages: list[str], converted: Path, build: Callable[..., Any], tmp_path: Path
) -> None:
    save_tiny_llama(tmp_path / "other", **changes)
    model = build(tmp_path / "other")
    with pytest.raises(UserError) as caught:
        load_model_weights(model, converted)
    for message in messages:
        assert message in str(caught.value)


def test_tensors_missing_from_a_checkpoint_are_named(
    converted: Path, build: Callable[..., Any], tmp_path: Path
) -> None:
    """A tied checkpoint holds no output layer."""
    from checkpoints_convert.hf_to_megatron import convert

    untied = build(converted.parents[1] / "hf")
    shutil.rmtree(tmp_path / "hf")
    save_tiny_llama(tmp_path / "hf", tie_word_embeddings=True)
    tied = convert(tmp_path / "hf", tmp_path / "tied")
    with pytest.raises(UserError, match=r"output_layer\.weight: missing"):
        load_model_weights(untied, tied)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_saved_from_a_model_load_into_another(
    dtype: torch.dtype, build: Callable[..., Any], converted: Path, tmp_path: Path
) -> None:
    from megatron_agent.model.checkpoint_tensors import model_sharded_state_dict
    from megatron_agent.model.checkpoint_writer import plan_write

    model = build(converted.parents[1] / "hf", params_dtype=dtype)
    before = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    temporary = begin_checkpoint(tmp_path / "saved", 7)
    plan = plan_write({"model": model_sharded_state_dict(model), "iteration": 7}, temporary)
    results, hashed = plan.write()
    plan.finish(results)
    folder = commit_checkpoint(temporary, tmp_path / "saved", 7, hashed)
    assert read_metadata(folder).state_dict_metadata.keys() == read_metadata(converted).state_dict_metadata.keys()
    for value in model.parameters():
        value.data.zero_()
    load_model_weights(model, folder)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def _pickled_attribute(kind: str, attribute: str) -> bytes:
    """Protocol 0: `getattr(torch.distributed.checkpoint.metadata.KIND, ATTRIBUTE)`."""
    names = f"cbuiltins\ngetattr\n(ctorch.distributed.checkpoint.metadata\n{kind}\nV{attribute}\ntR."
    return names.encode()


def test_an_enum_as_debian_pickles_it_is_read_and_no_other_attribute(tmp_path: Path) -> None:
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

    file = tmp_path / ".metadata"
    file.write_bytes(_pickled_attribute("_MEM_FORMAT_ENCODING", "TORCH_PRESERVE_FORMAT"))
    assert read_metadata(tmp_path) is _MEM_FORMAT_ENCODING.TORCH_PRESERVE_FORMAT
    for kind, attribute in (("_MEM_FORMAT_ENCODING", "__init_subclass__"), ("Metadata", "__init__")):
        file.write_bytes(_pickled_attribute(kind, attribute))
        with pytest.raises(UserError, match=f"asks for the attribute {attribute}"):
            read_metadata(tmp_path)
