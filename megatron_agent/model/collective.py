"""Errors that one rank meets and all have to raise: a rank that left alone would leave the others waiting."""

from collections.abc import Callable
from typing import Any, TypeVar

from megatron_agent.errors import UserError

Result = TypeVar("Result")


def on_rank_0(function: Callable[[], Result]) -> Result:
    """Run `function` on rank 0 while the others wait, and return what it returned there on every rank.

    What a user can mend there (`UserError`, `OSError`) is raised on every rank. The result must be picklable.
    """
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = function()
        except (UserError, OSError) as error:
            outcome[1] = error
    if world_size() > 1:
        import torch.distributed

        torch.distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def raised_on_all(function: Callable[[], Result]) -> Result:
    """Return this rank's `function()`; raise on every rank what a user can mend on any. Collective."""
    result: Result | None = None
    failure: Exception | None = None
    try:
        result = function()
    except (UserError, OSError) as error:
        failure = error
    for raised in gather(failure):
        if raised is not None:
            raise raised
    return result  # type: ignore[return-value]


def gather(value: Any) -> list[Any]:
    """Return the picklable `value` of every rank, in order of the ranks. Collective."""
    if world_size() == 1:
        return [value]
    import torch.distributed

    values: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait for all ranks."""
    _distributed(lambda dist: dist.barrier(), None)


def rank() -> int:
    """Return this process's rank, 0 without torch.distributed."""
    return _distributed(lambda dist: dist.get_rank(), 0)


def world_size() -> int:
    """Return the number of ranks, 1 without torch.distributed."""
    return _distributed(lambda dist: dist.get_world_size(), 1)


def _distributed(function: Callable[[Any], Any], otherwise: Any) -> Any:
    import torch.distributed

    return function(torch.distributed) if torch.distributed.is_initialized() else otherwise
