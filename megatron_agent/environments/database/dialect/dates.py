"""MySQL's functions of dates and times, over texts: `2020-11-30`, `2020-11-30 10:00:00`. What is no date gives NULL."""

import re
from calendar import monthrange
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

from sqlglot.dialects.mysql import MySQL

_DATE = re.compile(
    r"\s*(\d{4}|\d{2})[-/.:](\d{1,2})[-/.:](\d{1,2})(?:[ T]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.\d*)?)?)?(?!\d)"
)
_DIGITS = re.compile(r"\s*(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d))?(?!\d)")
_TIME = re.compile(r"(?:\d+[-/.]\d+[-/.]\d+[ T]+)?(\d{1,3}):(\d{1,2})(?::(\d{1,2}))?")
UNITS = ("MICROSECOND", "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR")
"""The units of INTERVAL, EXTRACT and TIMESTAMPDIFF."""
_SECONDS = {"MICROSECOND": 1e-6, "SECOND": 1.0, "MINUTE": 60.0, "HOUR": 3600.0, "DAY": 86400.0, "WEEK": 604800.0}
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
_LONGEST_PATTERN = 1000
_OF_TIME = re.compile("%[HkhIlisSTrpf]")


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


def has_time(pattern: str) -> bool:
    """Whether STR_TO_DATE with this pattern gives a time of day."""
    return _OF_TIME.search(pattern) is not None


def _of(pick: Callable[[datetime], Any]) -> Callable[[Any], Any]:
    def function(value: Any) -> Any:
        moment = parse(value)
        return None if moment is None else pick(moment)

    return function


def _of_time(place: int) -> Callable[[Any], int | None]:
    def function(value: Any) -> int | None:
        if match := _TIME.match(str(value).strip()):
            return int(match[place] or 0)
        return 0 if parse(value) else None

    return function


def _shift(value: Any, amount: Any, unit: str, sign: int) -> str | None:
    moment = parse(value)
    if moment is None:
        return None
    number = sign * (float(amount) if re.fullmatch(r"\s*[-+]?\d+(\.\d+)?\s*", str(amount)) else 0.0)
    try:
        if unit in _MONTHS:
            year, month = divmod(moment.year * 12 + moment.month - 1 + round(number) * _MONTHS[unit], 12)
            day = min(moment.day, monthrange(year, month + 1)[1])
            moment = moment.replace(year=year, month=month + 1, day=day)
        else:
            whole = number if unit in ("SECOND", "MICROSECOND") else round(number)
            moment += timedelta(seconds=whole * _SECONDS[unit])
    except (ValueError, OverflowError):
        return None
    is_date = ":" not in str(value) and unit in ("DAY", "WEEK", *_MONTHS)
    return str(moment.date() if is_date else moment)


def _difference(unit: str, first: Any, second: Any) -> int | None:
    """TIMESTAMPDIFF: whole units from the first to the second."""
    start, end = parse(first), parse(second)
    if start is None or end is None:
        return None
    if unit not in _MONTHS:
        return int((end - start).total_seconds() / _SECONDS[unit])
    sign = -1 if end < start else 1
    start, end = min(start, end), max(start, end)
    months = (end.year - start.year) * 12 + end.month - start.month
    months -= (end.day, end.time()) < (start.day, start.time())
    return sign * (months // _MONTHS[unit])


def _days_between(first: Any, second: Any) -> int | None:
    end, start = parse(first), parse(second)
    return None if end is None or start is None else (end.date() - start.date()).days


def _python_pattern(pattern: str) -> str:
    """Return a pattern of DATE_FORMAT or STR_TO_DATE as Python's `strftime` and `strptime` read it."""
    return re.sub("%.", lambda match: MySQL.TIME_MAPPING.get(match[0], match[0]), pattern, flags=re.DOTALL)


def _date_format(value: Any, pattern: Any) -> str | None:
    moment = parse(value)
    if moment is None or len(str(pattern)) > _LONGEST_PATTERN:
        return None
    day = moment.day
    ending = "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return moment.strftime(_python_pattern(str(pattern).replace("%D", f"{day}{ending}")))


def _str_to_date(value: Any, pattern: Any) -> str | None:
    """STR_TO_DATE; a date without year, month or day, which MySQL shows with zeros, gives NULL."""
    text, pattern = str(value), str(pattern).replace("%D", "%dth")
    if len(pattern) > _LONGEST_PATTERN or not all(re.search(part, pattern) for part in ("%[Yy]", "%[mcMb]", "%[dej]")):
        return None
    text = re.sub(r"(\d)(st|nd|rd)\b", r"\1th", text) if "%dth" in pattern else text
    reading = _python_pattern(pattern).replace("%-", "%")
    try:
        moment = datetime.strptime(text, reading)
    except (ValueError, re.error) as error:
        found = re.fullmatch("unconverted data remains: (.*)", str(error), re.DOTALL)
        return _str_to_date(text.removesuffix(found[1]), pattern) if found and found[1] else None
    return str(moment if has_time(pattern) else moment.date())


def _now() -> str:
    return str(datetime.now().replace(microsecond=0))


def _today() -> str:
    return str(date.today())


_PARTS: dict[str, Callable[[Any], Any]] = {
    "year": _of(lambda moment: moment.year),
    "month": _of(lambda moment: moment.month),
    "day": _of(lambda moment: moment.day),
    "quarter": _of(lambda moment: (moment.month + 2) // 3),
    "hour": _of_time(1),
    "minute": _of_time(2),
    "second": _of_time(3),
}
DATE_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_PARTS,
    "dayofmonth": _PARTS["day"],
    "weekday": _of(lambda moment: moment.weekday()),
    "dayofweek": _of(lambda moment: moment.isoweekday() % 7 + 1),
    "dayofyear": _of(lambda moment: moment.timetuple().tm_yday),
    "dayname": _of(lambda moment: f"{moment:%A}"),
    "monthname": _of(lambda moment: f"{moment:%B}"),
    "last_day": _of(lambda moment: str(moment.date().replace(day=monthrange(moment.year, moment.month)[1]))),
    "date": _of(lambda moment: str(moment.date())),
    "timestamp": _of(str),
    "date_format": _date_format,
    "str_to_date": _str_to_date,
    "datediff": _days_between,
    "timestampdiff": _difference,
    "date_add": lambda value, amount, unit: _shift(value, amount, unit, 1),
    "date_sub": lambda value, amount, unit: _shift(value, amount, unit, -1),
    "extract": lambda unit, value: _PARTS[unit.lower()](value) if unit.lower() in _PARTS else None,
    **dict.fromkeys(("now", "sysdate", "current_timestamp", "localtime"), _now),
    **dict.fromkeys(("curdate", "current_date"), _today),
    "curtime": lambda: f"{datetime.now():%H:%M:%S}",
}
"""By name; none takes NULL."""
