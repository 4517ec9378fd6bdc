"""MySQL's functions of dates and times, over texts: `2020-11-30`, `2020-11-30 10:00:00`. What is no date gives NULL."""

import re
from calendar import monthrange
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

_DATE = re.compile(
    r"\s*(\d{4}|\d{2})[-/.:](\d{1,2})[-/.:](\d{1,2})(?:[ T]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.\d*)?)?)?(?!\d)"
)
_DIGITS = re.compile(r"\s*(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d))?(?!\d)")
_TIME = re.compile(r"(?:\d+[-/.]\d+[-/.]\d+[ T]+)?(\d{1,3}):(\d{1,2})(?::(\d{1,2}))?")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
UNITS = ("MICROSECOND", "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR")
"""The units of INTERVAL, EXTRACT and TIMESTAMPDIFF."""
_SECONDS = {"MICROSECOND": 1e-6, "SECOND": 1.0, "MINUTE": 60.0, "HOUR": 3600.0, "DAY": 86400.0, "WEEK": 604800.0}
_LONGEST_PATTERN = 1000
_MONTHS_OF = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}


def parse(value: Any) -> datetime | None:
    """Return the date a text or a number such as 20201130 stands for, as far as it is one."""
    text = str(value)
    match = _DIGITS.match(text) or _DATE.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
    if len(match[1]) == 2:
        year += 1900 if year >= 70 else 2000
    try:
        return datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None


def is_date(value: Any) -> bool:
    """Whether a value carries no time of day."""
    return ":" not in str(value)


def _of(pick: Callable[[datetime], Any]) -> Callable[[Any], Any]:
    def function(value: Any) -> Any:
        moment = parse(value)
        return None if moment is None else pick(moment)

    return function


def _of_time(place: int) -> Callable[[Any], int | None]:
    def function(value: Any) -> int | None:
        match = _TIME.match(str(value).strip())
        if match is not None:
            return int(match[place] or 0)
        return 0 if parse(value) else None

    return function


def _shift(value: Any, amount: Any, unit: str, sign: int) -> str | None:
    moment = parse(value)
    if moment is None:
        return None
    number = float(amount) if re.fullmatch(r"\s*[-+]?\d+(\.\d+)?\s*", str(amount)) else 0.0
    try:
        if unit in _MONTHS_OF:
            months = moment.year * 12 + moment.month - 1 + sign * round(number) * _MONTHS_OF[unit]
            year, month = divmod(months, 12)
            last = monthrange(year, month + 1)[1]
            moment = moment.replace(year=year, month=month + 1, day=min(moment.day, last))
        else:
            whole = number if unit in ("SECOND", "MICROSECOND") else round(number)
            moment += timedelta(seconds=sign * whole * _SECONDS[unit])
    except (ValueError, OverflowError):
        return None
    short = is_date(value) and unit in ("DAY", "WEEK", *_MONTHS_OF)
    return str(moment.date()) if short else str(moment)


def _difference(unit: str, first: Any, second: Any) -> int | None:
    """TIMESTAMPDIFF: whole units from the first to the second."""
    start, end = parse(first), parse(second)
    if start is None or end is None:
        return None
    if unit not in _MONTHS_OF:
        return int((end - start).total_seconds() / _SECONDS[unit])
    sign = 1
    if end < start:
        start, end, sign = end, start, -1
    months = (end.year - start.year) * 12 + end.month - start.month
    months -= (end.day, end.time()) < (start.day, start.time())
    return sign * (months // _MONTHS_OF[unit])


def _days_between(first: Any, second: Any) -> int | None:
    end, start = parse(first), parse(second)
    return None if end is None or start is None else (end.date() - start.date()).days


def _extract(unit: str, value: Any) -> int | None:
    functions = {"HOUR": "hour", "MINUTE": "minute", "SECOND": "second"}
    if unit in functions:
        found: int | None = DATE_FUNCTIONS[functions[unit]](value)
        return found
    moment = parse(value)
    if moment is None:
        return None
    parts = {"YEAR": moment.year, "MONTH": moment.month, "DAY": moment.day, "QUARTER": (moment.month + 2) // 3}
    return parts.get(unit)


_SPECIFIERS: dict[str, Callable[[datetime], str]] = {
    "Y": lambda d: f"{d.year:04d}", "y": lambda d: f"{d.year % 100:02d}", "m": lambda d: f"{d.month:02d}",
    "c": lambda d: str(d.month), "M": lambda d: _MONTHS[d.month - 1], "b": lambda d: _MONTHS[d.month - 1][:3],
    "d": lambda d: f"{d.day:02d}", "e": lambda d: str(d.day), "D": lambda d: f"{d.day}{_ordinal(d.day)}",
    "j": lambda d: f"{d.timetuple().tm_yday:03d}", "W": lambda d: _DAYS[d.weekday()],
    "a": lambda d: _DAYS[d.weekday()][:3], "w": lambda d: str(d.isoweekday() % 7), "H": lambda d: f"{d.hour:02d}",
    "k": lambda d: str(d.hour), "h": lambda d: f"{(d.hour + 11) % 12 + 1:02d}", "I": lambda d: _SPECIFIERS["h"](d),
    "l": lambda d: str((d.hour + 11) % 12 + 1), "i": lambda d: f"{d.minute:02d}", "s": lambda d: f"{d.second:02d}",
    "S": lambda d: f"{d.second:02d}", "f": lambda d: "000000", "p": lambda d: "AM" if d.hour < 12 else "PM",
    "T": lambda d: f"{d:%H:%M:%S}", "r": lambda d: f"{_SPECIFIERS['h'](d)}:{d:%M:%S} {_SPECIFIERS['p'](d)}",
}  # fmt: skip


def _ordinal(day: int) -> str:
    return "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _date_format(value: Any, pattern: Any) -> str | None:
    moment = parse(value)
    if moment is None or len(str(pattern)) > _LONGEST_PATTERN:
        return None
    return re.sub(
        r"%(.)", lambda match: _SPECIFIERS.get(match[1], lambda _: match[1])(moment), str(pattern), flags=re.DOTALL
    )


_READERS = {
    "Y": r"(?P<Y>\d{4})", "y": r"(?P<y>\d{2})", "m": r"(?P<m>\d{1,2})", "c": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})", "e": r"(?P<d>\d{1,2})", "D": r"(?P<d>\d{1,2})(?:st|nd|rd|th)", "H": r"(?P<H>\d{1,2})",
    "k": r"(?P<H>\d{1,2})", "h": r"(?P<h>\d{1,2})", "I": r"(?P<h>\d{1,2})", "l": r"(?P<h>\d{1,2})",
    "i": r"(?P<i>\d{1,2})", "s": r"(?P<s>\d{1,2})", "S": r"(?P<s>\d{1,2})", "p": r"(?P<p>[AaPp][Mm])",
    "M": "(?P<M>" + "|".join(_MONTHS) + ")", "b": "(?P<M>" + "|".join(name[:3] for name in _MONTHS) + ")",
    "W": r"[A-Za-z]+", "a": r"[A-Za-z]{3}", "T": r"(?P<H>\d{1,2}):(?P<i>\d{1,2}):(?P<s>\d{1,2})",
}  # fmt: skip
TIME_SPECIFIERS = frozenset("HkhIlisSTrpf")
"""Those that make STR_TO_DATE give a time of day."""


def _str_to_date(value: Any, pattern: Any) -> str | None:
    if len(str(pattern)) > _LONGEST_PATTERN:
        return None
    expression = ""
    for piece in re.findall(r"%.|\s+|.", str(pattern), flags=re.DOTALL):
        if piece.isspace():
            expression += r"\s*"
        elif piece[0] == "%" and len(piece) == 2:
            expression += _READERS.get(piece[1], re.escape(piece[1]))
        else:
            expression += re.escape(piece)
    try:
        match = re.match(r"\s*" + expression, str(value), re.IGNORECASE)
    except re.error:  # a part given twice
        return None
    if match is None:
        return None
    got = {key: text for key, text in match.groupdict().items() if text is not None}
    year = int(got["Y"]) if "Y" in got else 0
    if "y" in got:
        year = int(got["y"]) + (1900 if int(got["y"]) >= 70 else 2000)
    month = int(got.get("m", 0))
    if "M" in got:
        month = [name[:3].lower() for name in _MONTHS].index(got["M"][:3].lower()) + 1
    hour = int(got.get("H", got.get("h", 0)))
    if "h" in got:
        hour = hour % 12 + 12 * (got.get("p", "AM").upper() == "PM")
    try:
        moment = datetime(year, month, int(got.get("d", 0)), hour, int(got.get("i", 0)), int(got.get("s", 0)))
    except ValueError:
        return None
    timed = any(piece[1] in TIME_SPECIFIERS for piece in re.findall(r"%.", str(pattern)))
    return str(moment) if timed else str(moment.date())


def _month_end(moment: datetime) -> str:
    return str(moment.date().replace(day=monthrange(moment.year, moment.month)[1]))


def _now() -> str:
    return str(datetime.now().replace(microsecond=0))


def _today() -> str:
    return str(date.today())


DATE_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "year": _of(lambda d: d.year),
    "month": _of(lambda d: d.month),
    "day": _of(lambda d: d.day),
    "dayofmonth": _of(lambda d: d.day),
    "quarter": _of(lambda d: (d.month + 2) // 3),
    "weekday": _of(lambda d: d.weekday()),
    "dayofweek": _of(lambda d: d.isoweekday() % 7 + 1),
    "dayofyear": _of(lambda d: d.timetuple().tm_yday),
    "dayname": _of(lambda d: _DAYS[d.weekday()]),
    "monthname": _of(lambda d: _MONTHS[d.month - 1]),
    "last_day": _of(_month_end),
    "to_days": _of(lambda d: d.toordinal() + 365),
    "hour": _of_time(1),
    "minute": _of_time(2),
    "second": _of_time(3),
    "date": _of(lambda d: str(d.date())),
    "timestamp": _of(str),
    "date_format": _date_format,
    "str_to_date": _str_to_date,
    "datediff": _days_between,
    "timestampdiff": _difference,
    "date_add": lambda value, amount, unit: _shift(value, amount, unit, 1),
    "date_sub": lambda value, amount, unit: _shift(value, amount, unit, -1),
    "extract": _extract,
    "now": _now,
    "sysdate": _now,
    "current_timestamp": _now,
    "localtime": _now,
    "curdate": _today,
    "current_date": _today,
    "curtime": lambda: f"{datetime.now():%H:%M:%S}",
}
"""By name; none takes NULL."""
