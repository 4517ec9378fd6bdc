"""Options that take one of a few words."""

from collections.abc import Sequence

from megatron_agent.errors import UserError


def check_choice(flag: str, value: str, choices: Sequence[str]) -> None:
    """Raise UserError, naming the flag and its choices, when `value` is none of them."""
    if value not in choices:
        raise UserError(f"{flag}: expected one of {', '.join(choices)}, got {value!r}")
