"""What commands say when files fail, and the helpers that write and read them."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron_agent.errors import UserError, run_command
from megatron_agent.files import (
    append_json_line,
    atomic_write,
    check_writable,
    exclusive,
    read_json_lines_tolerating_cut_tail,
    read_json_object,
    write_json_lines,
)


def status_of(action: object) -> int:
    with pytest.raises(SystemExit) as stop:
        run_command(action)  # type: ignore[arg-type]
    return int(str(stop.value.code))


def write_into(path: Path) -> None:
    with atomic_write(path) as handle:
        handle.write("x")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("folder", "Is a directory; give the path of a file"),
        ("file/below", "a file is where a folder is needed; move it away or choose another path"),
        ("file/much/below", "Not a directory; a part of this path is a file; choose another path"),
        ("n" * 300, "File name too long; choose a shorter path"),
    ],
)
def test_a_path_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, reason: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    assert status_of(lambda: write_into(tmp_path / target)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {tmp_path / target}: ")
    assert reason in printed
    assert printed.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"


def test_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Root may write everywhere, so the system's answers are played here."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / ".x.abc.tmp"))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert status_of(lambda: write_into(tmp_path / "x")) == 2
    expected = f"error: {tmp_path / 'x'}: Permission denied; check who may read and write there"
    assert capsys.readouterr().err.startswith(expected)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=r"--output .*: no permission to write in .*; choose another path"):
        check_writable(tmp_path / "x", "--output")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(lambda: append_json_line("/dev/full", {"a": 1})) == 2
    assert capsys.readouterr().err.startswith("error: /dev/full: No space left on device; free some space")


def test_a_full_disk_in_the_middle_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as error, atomic_write(tmp_path / "x"):
        raise OSError(28, "No space left on device")
    assert error.value.filename == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bug", [ValueError("x"), OSError("no number"), OSError(9, "Bad file descriptor"), KeyError(1)])
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    def main() -> None:
        raise bug

    with pytest.raises(type(bug)):
        run_command(main)


def test_interrupt_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    assert status_of(main) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_command_that_never_heard_of_the_failure(tmp_path: Path) -> None:
    """The real command, with a path that the system refuses to look at."""
    command = [sys.executable, "-m", "data_prep.import_agentinstruct", "--output", str(tmp_path / "x"), "--input"]
    done = subprocess.run([*command, "n" * 300], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {'n' * 300}: File name too long; choose a shorter path\n"


def test_check_writable(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "c", "--output")
    check_writable("name", "--output")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--output .*: expected the path of a file to write, got a folder"):
        check_writable(tmp_path, "--output")
    with pytest.raises(UserError, match=r"--plot .*file is a file, a folder is needed there"):
        check_writable(tmp_path / "file" / "a" / "b", "--plot")


def test_json_lines_survive_a_cut(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert read_json_lines_tolerating_cut_tail(path) == []
    records = [{"n": 1, "text": "a\ud800\n"}, {"n": 2, "text": "é" * 10_000}]
    for record in records:
        append_json_line(path, record, sync=True)
    assert read_json_lines_tolerating_cut_tail(path) == records
    whole = path.read_bytes()
    for cut in (1, 2, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        assert read_json_lines_tolerating_cut_tail(path) == records[:1]
    write_json_lines(path, records[:1])
    append_json_line(path, records[1])
    assert path.read_bytes() == whole
    path.write_bytes(b"[1]\n" + whole)
    with pytest.raises(UserError, match=r"x\.jsonl:1: expected a JSON object"):
        read_json_lines_tolerating_cut_tail(path)
    path.write_bytes(whole + b"\xff\n")
    with pytest.raises(UserError, match=r"x\.jsonl:3: expected a line of JSON"):
        read_json_lines_tolerating_cut_tail(path)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": \xff}', b"{", b"[" * 100_000])
def test_json_objects(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"a": 1}))
    assert read_json_object(path, "mend it") == {"a": 1}
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json: .*; mend it$"):
        read_json_object(path, "mend it")


def test_a_terminal_without_unicode_gets_escapes() -> None:
    code = "from megatron_agent.errors import run_command; run_command(lambda: print('\\u6f22'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"\\u6f22\n", b"", 0)


def test_a_lock_is_held_by_one_and_gone_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = "import sys, pathlib, megatron_agent.files as f\nwith f.exclusive(pathlib.Path(sys.argv[1]), ''):\n" \
           "    print('held', flush=True); input()"  # fmt: skip
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=r"^busy$"), exclusive(path, "busy"):
        pass
    holder.kill()
    holder.communicate()
    with exclusive(path, "busy"), pytest.raises(UserError, match=r"^busy$"), exclusive(path, "busy"):
        pass


def test_a_lock_file_that_its_last_holder_removed_or_moved_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened before, locked after: two would hold a lock, each on a file of its own."""
    path, real, taken = tmp_path / "lock", fcntl.flock, []

    def late(handle: Any, operation: int) -> None:
        real(handle, operation)
        taken.append(handle)
        if len(taken) == 1:
            path.unlink()
        elif len(taken) == 2:
            path.rename(tmp_path / "finished")

    monkeypatch.setattr(fcntl, "flock", late)
    with exclusive(path, "busy"):
        assert len(taken) == 3
        with pytest.raises(UserError, match="busy"), exclusive(path, "busy"):
            pass


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = pytest.raises(UserError, match=r"lock: no lock can be held there \(No locks available\)")
    with told, exclusive(tmp_path / "lock", "busy"):
        pass
