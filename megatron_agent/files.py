"""Files written whole or not at all, locks, JSON files, and hashes."""

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from megatron_agent.errors import UserError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a failed write does not say of which file


def fsync_directory(directory: Path) -> None:
    """Make renames inside `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success sync it and rename it to `path`, on failure remove it.

    Readers see the old content or the new one, never a part. `mode` is `"w"` (UTF-8 text) or `"wb"`. An OSError
    on the way names `path`, not the temporary file.
    """
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files private; data sets are shared
        os.replace(temporary, path)
        fsync_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and (error.filename == temporary or error.errno in _DISK_FULL):
            _name(error, path)
        raise


@contextlib.contextmanager
def exclusive(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock on the file at `path`, which is made if need be. A process that died holds none.

    Raises :class:`UserError` with the message `busy` when it is held already, and where the file system has no locks.
    """
    while True:
        with open(path, "ab") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(busy) from None
            except OSError as error:
                raise UserError(
                    f"{path}: no lock can be held there ({error.strerror}); choose a path on a file system with locks"
                ) from error
            if _is_at(handle, path):  # its last holder may have moved or removed it
                yield
                return


def _is_at(handle: IO[Any], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def check_writable(path: str | Path, flag: str) -> None:
    """Raise :class:`UserError` when a file could not be written at `path`, before long work is done for it.

    Looks for a folder of that name, a file among its parents, and a missing permission; makes nothing. `flag` is
    the option that names the path.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{flag} {path}: expected the path of a file to write, got a folder; add a file name")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{flag} {path}: {folder} is a file, a folder is needed there; choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {path}: no permission to write in {folder}; choose another path")


def read_json_object(path: str | Path, mend: str) -> dict[str, Any]:
    """Return the JSON object in a file; :class:`UserError` naming the file when it holds anything else.

    `mend` ends the message: how to get a good file. A file that cannot be opened raises its OSError.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8 is a ValueError too
        raise UserError(f"{path}: not valid JSON ({error}); {mend}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}; {mend}")
    return value


def append_json_line(path: str | Path, record: dict[str, Any], sync: bool = False) -> None:
    """Append one line of JSON with a single write, so that a killed program leaves at most its last line cut.

    With `sync` the line survives a power cut too. The line is ASCII: a model's lone surrogates cannot break it.
    """
    line = (json.dumps(record) + "\n").encode("ascii")
    with naming(Path(path)), open(path, "ab") as handle:
        handle.write(line)
        if sync:
            handle.flush()
            os.fsync(handle.fileno())


def read_json_lines_tolerating_cut_tail(path: str | Path) -> list[dict[str, Any]]:
    """Return the records that :func:`append_json_line` wrote to a file (none without the file).

    A last line without its newline was cut by a stop and is left out. It is still in the file: before appending
    again, give what is to stay to :func:`write_json_lines`. Raises :class:`UserError` for other damage.
    """
    if not Path(path).exists():
        return []
    lines = Path(path).read_bytes().split(b"\n")[:-1]
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: expected a line of JSON ({error}); remove or mend the line") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, got {line[:40]!r}; remove or mend the line")
        records.append(record)
    return records


def write_json_lines(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records as lines of JSON, whole or not at all."""
    with atomic_write(path) as handle:
        handle.writelines(json.dumps(record) + "\n" for record in records)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError from inside speak of `path`: a failed write does not say of which file."""
    try:
        yield
    except OSError as error:
        _name(error, path)
        raise


def _name(error: OSError, path: Path) -> None:
    """Let `error` speak of `path`."""
    error.filename, error.filename2 = str(path), None


def shortest_names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths, no two of them the same, that tell them apart."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def open_decompressed(path: str | Path) -> IO[bytes]:
    """Open a file for reading bytes, through gzip when it begins as gzip does, whatever its name.

    A gzip file that was cut or damaged raises EOFError, `zlib.error` or `gzip.BadGzipFile` (an OSError) on reading.
    """
    with open(path, "rb") as handle:
        compressed = handle.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if compressed else open(path, "rb")


def sha256_file(path: str | Path, progress: Callable[[], None] | None = None) -> str:
    """Return the hexadecimal SHA-256 of a file, read in 1 MiB blocks; `progress` is called after each."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
            if progress is not None:
                progress()
    return digest.hexdigest()
