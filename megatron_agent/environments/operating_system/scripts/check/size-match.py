"""Whether the answer and the expected output are the same size: a whole number, with a unit of powers of 1,024."""

import re
import sys


def in_bytes(text: str) -> int:
    match = re.fullmatch(r"\s*([+-]?\d+)\s*(?:(Byte|B)|([KMGTP])B?)?\s*", text)
    if match is None:
        sys.exit(1)
    number, _, unit = match.groups()
    return int(number) * 1024 ** ("KMGTP".index(unit) + 1 if unit else 0)


sys.exit(0 if in_bytes(sys.argv[1]) == in_bytes(sys.argv[2]) else 1)
