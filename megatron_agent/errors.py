"""Errors a user can mend, and the one way commands report them."""

import sys
from collections.abc import Callable

EXIT_BAD_INPUT = 2


class UserError(Exception):
    """Bad input or configuration.

    The message says what was expected, what came, where (file, line, record id or flag) and how to mend it.
    Commands print it without a traceback and exit with status 2.
    """


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main`; report a :class:`UserError` as one `error:` line and exit with status 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        sys.exit(1)
