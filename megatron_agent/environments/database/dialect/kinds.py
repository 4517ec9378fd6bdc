"""MySQL's types of values, as far as they show in a result: what kind an expression has, and how a value is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

_MOST_DIGITS = 30


@dataclass(frozen=True)
class Kind:
    """`text`, `integer`, `double`, `decimal` (of `digits` behind the point), `date`, `datetime`, `null`, `unknown`."""

    name: str
    digits: int = 0

    @property
    def is_number(self) -> bool:
        return self.name in ("integer", "double", "decimal")


TEXT, INTEGER, DOUBLE, DATE, DATETIME, NULL, UNKNOWN = (
    Kind(name) for name in ("text", "integer", "double", "date", "datetime", "null", "unknown")
)

AGGREGATES = frozenset({
    "count", "sum", "avg", "min", "max", "group_concat", "mysql_group_concat", "std", "stddev", "stddev_pop",
    "stddev_samp", "variance", "var_pop", "var_samp",
})  # fmt: skip
_BY_NAME = {
    name: kind
    for kind, names in (
        (TEXT, "concat concat_ws lower upper substr substring mid left right trim ltrim rtrim replace "
               "repeat space reverse lpad rpad substring_index format date_format dayname monthname group_concat "
               "mysql_group_concat md5 hex char insert database schema version quote"),
        (INTEGER, "count length char_length character_length locate position instr field find_in_set "
                  "sign year month day dayofmonth hour minute second quarter weekday dayofweek dayofyear "
                  "datediff timestampdiff extract div xor isnull row_number rank dense_rank ntile "
                  "last_insert_id"),
        (DOUBLE, "sqrt pow power exp ln log log10 rand std stddev stddev_pop stddev_samp variance var_pop "
                 "var_samp percent_rank cume_dist"),
        (DATE, "date curdate current_date last_day"),
        (DATETIME, "now sysdate current_timestamp localtime timestamp"),
    )
    for name in names.split()
}  # fmt: skip
_AS_FIRST = frozenset(
    "min max nullif lag lead first_value last_value nth_value any_value date_add date_sub adddate subdate".split()  # noqa: SIM905
)
_AS_NUMBER = frozenset("sum avg abs round truncate floor ceil ceiling".split())  # noqa: SIM905
IN_MYSQL = frozenset([
    *_BY_NAME, *AGGREGATES, *_AS_FIRST, *_AS_NUMBER, "if", "ifnull", "coalesce", "greatest", "least", "mod", "cast",
    "convert", "str_to_date", "curtime", "values",
])  # fmt: skip
"""Functions that MySQL has and that are read here; SQLite's own others (IIF, STRFTIME) there are not in MySQL."""


def joined(kinds: Sequence[Kind]) -> Kind:
    """Return the kind of a value that may be any of these: IF, CASE, COALESCE, UNION."""
    some = [kind for kind in kinds if kind.name != "null"]
    if not some:
        return NULL
    names = {kind.name for kind in some}
    if "unknown" in names:
        return UNKNOWN
    if len(names) == 1 and names != {"decimal"}:
        return some[0]
    if names <= {"integer", "decimal"}:
        return Kind("decimal", max(kind.digits for kind in some))
    return DOUBLE if names <= {"integer", "decimal", "double"} else TEXT


def computed(operator: str, left: Kind, right: Kind) -> Kind:
    """Return the kind of `left operator right`: texts count as doubles, division adds four digits."""
    if "unknown" in (left.name, right.name):
        return UNKNOWN
    if not all(kind.is_number or kind.name == "null" for kind in (left, right)):
        return DOUBLE
    if "double" in (left.name, right.name):
        return DOUBLE
    if operator == "/":
        return Kind("decimal", min(_MOST_DIGITS, left.digits + 4))
    if {left.name, right.name} <= {"integer", "null"}:
        return INTEGER
    both = left.digits + right.digits if operator == "*" else max(left.digits, right.digits)
    return Kind("decimal", min(_MOST_DIGITS, both))


def called(name: str, arguments: Sequence[Kind], places: int | None) -> Kind:
    """Return the kind of a function's result. `places` is the second argument where that is a whole number."""
    first = arguments[0] if arguments else UNKNOWN
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name in _AS_FIRST:
        return first
    if name in ("greatest", "least") and any(argument.is_number for argument in arguments):
        return joined([DOUBLE if argument == TEXT else argument for argument in arguments])
    if name in ("coalesce", "ifnull", "greatest", "least"):
        return joined(arguments)
    if name == "if":
        return joined(arguments[1:])
    if name == "mod" and len(arguments) == 2:
        return computed("%", *arguments)
    if name not in _AS_NUMBER:
        return UNKNOWN
    if first.name not in ("integer", "decimal"):
        return first if first == UNKNOWN else DOUBLE
    if name in ("sum", "avg"):
        return Kind("decimal", first.digits + 4 * (name == "avg"))
    if name in ("floor", "ceil", "ceiling"):
        return INTEGER
    if name in ("round", "truncate") and first.name == "decimal":
        digits = 0 if len(arguments) == 1 else places
        return UNKNOWN if digits is None else Kind("decimal", max(0, min(first.digits, digits)))
    return first


def shown(value: object, kind: Kind) -> object:
    """Return a value of a result as PyMySQL hands it over: `Decimal('2.50')`, `10.0`, `datetime.date(2020, 11, 30)`."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        if kind.name == "double":
            return float(value)
        if kind.name == "text":
            return str(int(value)) if float(value).is_integer() else repr(value)
        if kind.name == "integer" and isinstance(value, float) and value.is_integer():
            return int(value)
        if kind.name == "decimal":
            try:
                return Decimal(repr(value)).quantize(Decimal(1).scaleb(-kind.digits), ROUND_HALF_UP)
            except InvalidOperation:
                return value
    elif isinstance(value, str) and kind.name in ("date", "datetime"):
        try:
            return date.fromisoformat(value) if kind.name == "date" else datetime.fromisoformat(value)
        except ValueError:
            return value
    return value
