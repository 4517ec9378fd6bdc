"""MySQL's functions that SQLite lacks or computes otherwise, as Python functions of SQL values. NULL gives NULL."""

import hashlib
import math
import random
import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, InvalidOperation
from functools import cmp_to_key
from statistics import pstdev, pvariance, stdev, variance
from typing import Any

from megatron_agent.environments.database.dialect import collation
from megatron_agent.environments.database.dialect.dates import DATE_FUNCTIONS

Value = str | bytes | int | float | None

GROUP_CONCAT_MAX_BYTES = 1024
"""MySQL's default `group_concat_max_len`, under which AgentBench's md5 labels were computed."""
MAX_VALUE_BYTES = 4_000_000
_MOST_PLACES = 30  # behind the point, MySQL's own limit
_TOO_LONG = "1301 (HY000): Result of a function was larger than max_allowed_packet (4000000) - truncated"
_BAD_PATTERN = "3685 (HY000): Illegal argument to a regular expression."

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
_INTEGER = re.compile(r"\s*([-+]?\d+)")


def register(
    connection: sqlite3.Connection,
    names: Iterable[str],
    guarded: Callable[[str, Callable[..., Any]], Callable[..., Any]],
) -> None:
    """Add those functions of `ADDED` to a connection that have these names, each as `guarded` returns it."""
    for name in names:
        if name in _AGGREGATES:
            connection.create_aggregate(name, -1, _AGGREGATES[name])
        else:
            function = _FUNCTIONS_OF_NULL.get(name) or _null_in_null_out(_FUNCTIONS[name])
            connection.create_function(name, -1, guarded(name, function), deterministic=name not in _CHANGING)


def _null_in_null_out(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: None if None in arguments else function(*arguments)


def as_text(value: Value) -> str:
    """Return a value as MySQL writes it where text is wanted: a DOUBLE of 5 is `5`."""
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        return repr(value).replace("e+", "e")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def as_number(value: Value) -> int | float:
    """Return the number a text begins with, 0 if none, as MySQL converts it."""
    if isinstance(value, int | float):
        return value
    match = _NUMBER.match(as_text(value))
    if match is None:
        return 0
    return int(match[1]) if _INTEGER.fullmatch(match[1]) else float(match[1])


def _bounded(text: str) -> str:
    if len(text) > MAX_VALUE_BYTES:
        raise ValueError(_TOO_LONG)  # SQLite reports a failed function
    return text


def _whole(value: Value) -> int:
    return int(as_number(value))


# Texts


def concat_ws(separator: Value, *values: Value) -> str | None:
    """Join what is not NULL; a separator of NULL gives NULL."""
    if separator is None:
        return None
    return _bounded(as_text(separator).join(as_text(value) for value in values if value is not None))


def _repeat(text: Value, times: Value) -> str:
    count, text = max(0, _whole(times)), as_text(text)
    if count * len(text) > MAX_VALUE_BYTES:
        raise ValueError(_TOO_LONG)
    return text * count


def _padding(text: str, length: Value, padding: str) -> str | None:
    missing = _whole(length) - len(text)
    if missing > MAX_VALUE_BYTES or _whole(length) < 0 or (not padding and missing > 0):
        return None
    return (padding * missing)[: max(0, missing)]


def _left_padded(text: Value, length: Value, padding: Value) -> str | None:
    fill = _padding(as_text(text), length, as_text(padding))
    return None if fill is None else (fill + as_text(text))[: _whole(length)]


def _right_padded(text: Value, length: Value, padding: Value) -> str | None:
    fill = _padding(as_text(text), length, as_text(padding))
    return None if fill is None else (as_text(text) + fill)[: _whole(length)]


def _upper(value: Value) -> str:
    """Letter by letter: ß stays."""
    return "".join(letter if len(letter.upper()) > 1 else letter.upper() for letter in as_text(value))


def _right(text: Value, length: Value) -> str:
    return as_text(text)[-_whole(length) :] if _whole(length) > 0 else ""


def _substring_index(text: Value, delimiter: Value, count: Value) -> str:
    text, delimiter, number = as_text(text), as_text(delimiter), _whole(count)
    if not delimiter or not number:
        return ""
    parts = text.split(delimiter)
    return delimiter.join(parts[:number] if number > 0 else parts[number:])


def _locate(part: Value, text: Value, start: Value = 1) -> int:
    """Return where `part` begins, from 1; 0 if nowhere. Case does not matter."""
    begin = _whole(start) - 1
    return as_text(text).lower().find(as_text(part).lower(), begin) + 1 if begin >= 0 else 0


def _find_in_set(text: Value, items: Value) -> int:
    folded = [collation.fold(item) for item in as_text(items).split(",")] if as_text(items) else []
    wanted = collation.fold(as_text(text))
    return folded.index(wanted) + 1 if wanted in folded else 0


def _field(text: Value, *values: Value) -> int:
    places = [place for place, value in enumerate(values, 1) if value is not None and _compare(text, value) == 0]
    return places[0] if places and text is not None else 0


def _regexp(pattern: Value, text: Value) -> bool:
    """REGEXP without regard to case. Patterns whose search could take longer than a statement may are refused."""
    return _compiled(as_text(pattern), len(as_text(text))).search(as_text(text)) is not None


def _compiled(pattern: str, length: int) -> re.Pattern[str]:
    """Raises ValueError for a pattern that repeats what repeats, or so many repeats that a search is a long one."""
    bare = re.sub(r"\\.|\[\^?\]?(?:\[:\w+:\]|[^\]])*\]", "c", pattern, flags=re.DOTALL)
    repeats = len(re.findall(r"[*+]|\{\d+,\d*\}", bare))
    if re.search(r"[*+}|][^()]*\)+[*+{]", bare) or "(" * 20 in bare or float(max(length, 2)) ** (repeats + 1) > 1e7:
        raise ValueError("3699 (HY000): Timeout exceeded in regular expression match.")
    for name, characters in _CLASSES.items():
        pattern = pattern.replace(f"[:{name}:]", characters)
    try:
        return re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError) as error:
        raise ValueError(_BAD_PATTERN) from error


_CLASSES = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "space": r"\s", "upper": "A-Z", "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
}  # fmt: skip


# Numbers


def _compare(left: Value, right: Value) -> int:
    if isinstance(left, str) and isinstance(right, str):
        return collation.compare(left, right)
    first, second = as_number(left), as_number(right)
    return (first > second) - (first < second)


def _of_one_kind(value: Value, values: Sequence[Value]) -> Value:
    return value if all(isinstance(each, str) for each in values) else as_number(value)


def _modulo(left: Value, right: Value) -> int | float | None:
    first, second = as_number(left), as_number(right)
    if not second:
        return None
    if isinstance(first, int) and isinstance(second, int):
        return abs(first) % abs(second) * (-1 if first < 0 else 1)
    return math.fmod(first, second)


def _to_signed(value: Value) -> int:
    """CAST to SIGNED: text up to its first character that is no digit, numbers rounded."""
    if isinstance(value, int | float):
        number = int(_decimal(value, 0))
    else:
        match = _INTEGER.match(as_text(value))
        number = int(match[1]) if match else 0
    return max(-(2**63), min(2**63 - 1, number))


def _to_unsigned(value: Value) -> int | float:
    number = _to_signed(value)
    return number if number >= 0 else float(2**64 + number)


def _decimal(value: Value, digits: Value, rounding: str = ROUND_HALF_UP) -> Decimal:
    number, places = as_number(value), max(-_MOST_PLACES, min(_MOST_PLACES, _whole(digits)))
    try:
        return Decimal(repr(number)).quantize(Decimal(1).scaleb(-places), rounding)
    except InvalidOperation:  # more digits than a decimal holds
        return Decimal(repr(number))


def _to_decimal(value: Value, digits: Value = 0) -> int | float:
    number = _decimal(value, digits)
    return int(number) if number == number.to_integral_value() and abs(number) < 2**63 else float(number)


def stored_text(value: Value) -> Value:
    """Return what a TEXT column of MySQL makes of a DOUBLE: `5`, not SQLite's `5.0`, and all digits of others."""
    return as_text(value) if isinstance(value, float) else value


def _truncate(value: Value, digits: Value) -> int | float:
    cut = _decimal(value, digits, ROUND_DOWN)
    return int(cut) if isinstance(as_number(value), int) else float(cut)


def _round_double(value: Value, digits: Value = 0) -> float:
    """ROUND of a DOUBLE: the nearest even of two that are as near, as the C library's `rint`."""
    number, places = float(as_number(value)), max(-300, min(300, _whole(digits)))
    scale = 10.0 ** abs(places)
    if places < 0:
        return round(number / scale) * scale
    return round(number * scale) / scale if abs(number) < 1e15 and places < 16 else number


def _format(value: Value, digits: Value) -> str:
    places = max(0, min(_MOST_PLACES, _whole(digits)))
    return f"{_decimal(value, places):,.{places}f}"


def _logarithm(value: Value, *argument: Value) -> float | None:
    """LOG(x), or LOG(base, x)."""
    base, number = (as_number(each) for each in ((value, *argument) if argument else (math.e, value)))
    return math.log(number) / math.log(base) if number > 0 and base > 0 and base != 1 else None


# Aggregates


class _Collecting:
    """An aggregate that looks at all values together, those that are not NULL."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def step(self, value: Value) -> None:
        if value is not None:
            self.values.append(value)


class _SortedGroupConcat(_Collecting):
    """`group_concat(x ORDER BY x)` of the check query, cut at MySQL's default length. NULL over no rows."""

    def finalize(self) -> str | None:
        return ",".join(sorted(self.values))[:GROUP_CONCAT_MAX_BYTES] if self.values else None


class _GroupConcat(_Collecting):
    """GROUP_CONCAT with its own words: separator, whether distinct, whether descending, the text, the sort keys."""

    def step(self, separator: str, distinct: int, descending: int, text: Value, *keys: Value) -> None:  # type: ignore[override]
        self.separator, self.distinct, self.descending = separator, distinct, descending
        if text is not None:
            self.values.append((as_text(text), keys))

    def finalize(self) -> str | None:
        if not self.values:
            return None
        rows = self.values
        if self.distinct:
            rows = list({collation.fold(row[0]): row for row in reversed(rows)}.values())[::-1]
        rows = sorted(rows, key=cmp_to_key(_compare_keys), reverse=bool(self.descending))
        return self.separator.join(text for text, _ in rows).encode()[:GROUP_CONCAT_MAX_BYTES].decode(errors="ignore")


def _compare_keys(left: tuple[str, tuple[Value, ...]], right: tuple[str, tuple[Value, ...]]) -> int:
    for first, second in zip(left[1], right[1], strict=True):
        is_null = first is None or second is None
        if order := (first is not None) - (second is not None) if is_null else _compare(first, second):
            return order
    return 0


def _spread(measure: Callable[[list[float]], float], least: int) -> type:
    class Spread(_Collecting):
        def finalize(self) -> float | None:
            return measure([float(as_number(value)) for value in self.values]) if len(self.values) >= least else None

    return Spread


_CHANGING = {"now", "sysdate", "current_timestamp", "localtime", "curdate", "current_date", "curtime", "rand"}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "md5": lambda value: hashlib.md5(as_text(value).encode()).hexdigest(),
    "concat": lambda first, *others: _bounded("".join(as_text(value) for value in (first, *others))),
    **dict.fromkeys(("char_length", "character_length"), lambda value: len(as_text(value))),
    "length": lambda value: len(as_text(value).encode()),
    "lower": lambda value: as_text(value).lower(),
    "upper": _upper,
    "like": lambda pattern, text, *escape: collation.like(as_text(pattern), as_text(text), *map(as_text, escape)),
    "regexp": _regexp,
    "left": lambda text, length: as_text(text)[: max(0, _whole(length))],
    "right": _right,
    "repeat": _repeat,
    "space": lambda times: _repeat(" ", times),
    "reverse": lambda value: as_text(value)[::-1],
    "lpad": _left_padded,
    "rpad": _right_padded,
    "substring_index": _substring_index,
    "locate": _locate,
    "instr": lambda text, part: _locate(part, text),
    "find_in_set": _find_in_set,
    "greatest": lambda *values: _of_one_kind(max(values, key=cmp_to_key(_compare)), values),
    "least": lambda *values: _of_one_kind(min(values, key=cmp_to_key(_compare)), values),
    "mod": _modulo,
    "div": lambda left, right: int(as_number(left) / as_number(right)) if as_number(right) else None,
    "xor": lambda left, right: bool(as_number(left)) != bool(as_number(right)),
    "to_signed": _to_signed,
    "to_unsigned": _to_unsigned,
    **dict.fromkeys(("to_decimal", "round_decimal"), _to_decimal),
    "decimal_text": lambda value, digits: f"{_decimal(value, digits):f}",
    "truncate": _truncate,
    "round_double": _round_double,
    "format": _format,
    "floor": lambda value: math.floor(as_number(value)),
    **dict.fromkeys(("ceil", "ceiling"), lambda value: math.ceil(as_number(value))),
    "sign": lambda value: _compare(as_number(value), 0),
    "sqrt": lambda value: math.sqrt(as_number(value)) if as_number(value) >= 0 else None,
    **dict.fromkeys(("pow", "power"), lambda base, exponent: float(as_number(base)) ** float(as_number(exponent))),
    "exp": lambda value: math.exp(as_number(value)),
    **dict.fromkeys(("ln", "log"), _logarithm),
    "log10": lambda value: _logarithm(10, value),
    "rand": lambda *seed: random.random(),
    "distinct_key": lambda *values: "\0".join(collation.fold(as_text(value)) for value in values),
    "version": lambda: "8.0.36",
    "last_insert_id": lambda: 0,
    **DATE_FUNCTIONS,
}
_FUNCTIONS_OF_NULL: dict[str, Callable[..., Any]] = {
    "concat_ws": concat_ws,
    "isnull": lambda value: value is None,
    "field": _field,
    "stored_text": stored_text,
}
_AGGREGATES: dict[str, Any] = {
    "sorted_group_concat": _SortedGroupConcat,
    "mysql_group_concat": _GroupConcat,
    **dict.fromkeys(("std", "stddev", "stddev_pop"), _spread(pstdev, 1)),
    **dict.fromkeys(("variance", "var_pop"), _spread(pvariance, 1)),
    "stddev_samp": _spread(stdev, 2),
    "var_samp": _spread(variance, 2),
}
ADDED = frozenset([*_FUNCTIONS, *_FUNCTIONS_OF_NULL, *_AGGREGATES])
"""The names of all functions that `register` can add."""
