"""Errors a user can mend, and the one way commands report them."""

import errno
import io
import os
import sys
from collections.abc import Callable

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count

FILE_ERRORS = {
    errno.ENOENT: "check the path",
    errno.EACCES: "check who may read and write there, or choose another path",
    errno.EPERM: "check who may read and write there, or choose another path",
    errno.EROFS: "choose a path on a file system that can be written",
    errno.EISDIR: "give the path of a file",
    errno.ENOTDIR: "a part of this path is a file; choose another path",
    errno.EEXIST: "a file is where a folder is needed; move it away or choose another path",
    errno.ENOTEMPTY: "empty the folder or choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "mend the circle of links or choose another path",
    errno.ENOSPC: "free some space or choose a path on another disk",
    errno.EDQUOT: "free some space or choose a path on another disk",
    errno.EFBIG: "choose a path on a file system that holds larger files",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "the disk or its network failed; try again or choose another path",
    errno.ESTALE: "the disk or its network failed; try again or choose another path",
}
"""Failures of the file system that a user can mend, and how."""


class UserError(Exception):
    """Bad input or configuration.

    The message says what was expected, what came, where (file, line, record id or flag) and how to mend it.
    Commands print it without a traceback and exit with status 2.
    """


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; report what a user can mend as one `error:` line and exit with status 2.

    That is a :class:`UserError` and an OSError of the file system (`FILE_ERRORS`). Ctrl-C is one line and status
    130. Anything else is a bug and keeps its traceback. A terminal that cannot show a character gets its escape.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        print(f"error: {describe_file_error(error)}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def describe_file_error(error: OSError) -> str:
    """Return `file: reason; how to mend it` for an OSError whose number is in `FILE_ERRORS`."""
    files = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = f"{' -> '.join(files)}: " if files else ""
    return f"{where}{error.strerror}; {FILE_ERRORS[error.errno or 0]}"
