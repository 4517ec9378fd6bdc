"""Python literals in text, read from several threads at once."""

import ast
from threading import Lock
from typing import Any

_ONE_AT_A_TIME = Lock()


def literal_eval(text: str) -> Any:
    """Return what `ast.literal_eval` returns, and raise what it raises, from any thread.

    CPython (3.11.7 seen) keeps one recursion counter for all threads that turn syntax into `ast` objects: when a
    garbage collection lets another thread in half-way, both end with `SystemError: AST constructor recursion depth
    mismatch`.
    """
    with _ONE_AT_A_TIME:
        return ast.literal_eval(text)
