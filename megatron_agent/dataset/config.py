"""Configuration of the data: sources, their weights, eta, packing. Imports nothing heavy."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from megatron_agent.errors import UserError


@dataclass
class SourceConfig:
    """One indexed dataset and its weight among the sources of its group."""

    name: str
    """Name of the source in reports; its order of conversations depends on this name and the seed alone."""
    prefix: str
    """Path of the indexed dataset without ending, as given to `build_indexed_dataset --output-prefix`."""
    weight: float = 1.0
    """Share of this source among the draws of its group; weights of a group need not add up to 1."""


@dataclass
class DataConfig:
    """Agent and general conversations, mixed by conversation with probability eta, packed into rows."""

    agent: list[SourceConfig] = field(default_factory=list)
    """Sources of agent trajectories."""
    general: list[SourceConfig] = field(default_factory=list)
    """Sources of general conversations (AgentTuning: GPT-4 with weight 0.2, GPT-3.5 with weight 0.8)."""
    eta: float = 0.2
    """Probability that the next conversation is drawn from the agent sources (AgentTuning: 0.2)."""
    seq_length: int = 4096
    """Tokens in a packed row."""
    seed: int = 1234
    """Seed of the draws, of the order inside every pass and of the held-out split."""
    validation_fraction: float = 0.01
    """Share of each source's conversations held out for evaluation; at least one when above 0."""
    cache_dir: str | None = None
    """Folder for finished mixture plans; without one, every start computes its plan again (seconds)."""
    verify: bool = True
    """Compare the sha256 of every data file with its manifest before use."""

    def sources(self) -> list[SourceConfig]:
        """Return all sources, agent ones first; their order numbers them in packed rows."""
        return [*self.agent, *self.general]

    def check(self) -> None:
        """Raise :class:`UserError` naming the field when a value cannot be meant."""
        if not 0.0 <= self.eta <= 1.0:  # also refuses NaN
            raise UserError(f"data.eta must lie in [0, 1], got {self.eta}")
        if self.seq_length < 2:
            raise UserError(f"data.seq_length must be at least 2 tokens, got {self.seq_length}")
        if self.seed < 0:
            raise UserError(f"data.seed must not be negative, got {self.seed}")
        if not 0.0 <= self.validation_fraction < 1.0:
            raise UserError(f"data.validation_fraction must lie in [0, 1), got {self.validation_fraction}")
        if self.eta > 0 and not self.agent:
            raise UserError(f"data.agent must name at least one source, data.eta is above 0 ({self.eta})")
        if self.eta < 1 and not self.general:
            raise UserError(f"data.general must name at least one source when data.eta is {self.eta} (below 1)")
        first_use: dict[str, str] = {}
        for group in ("agent", "general"):
            for number, source in enumerate(getattr(self, group)):
                where = f"data.{group}[{number}]"
                if not source.name:
                    raise UserError(f"{where}.name must not be empty")
                if source.name in first_use:
                    raise UserError(
                        f"{where}.name {source.name!r} is already the name of {first_use[source.name]}; "
                        "give every source a name of its own"
                    )
                first_use[source.name] = where
                if not source.prefix:
                    raise UserError(f"{where}.prefix must not be empty (source {source.name!r})")
                if not (math.isfinite(source.weight) and source.weight > 0):
                    raise UserError(
                        f"{where}.weight must be a finite number above 0, got {source.weight} (source "
                        f"{source.name!r}); leave a source out to give it no weight"
                    )


def parse_data_config(section: object, where: str) -> DataConfig:
    """Build a :class:`DataConfig` from the `data` section of a YAML file; unknown keys are errors.

    `where` names the file in messages. Checks types only; call :meth:`DataConfig.check` for values.
    """
    values = _parse(DataConfig, section, f"{where}: data")
    for group in ("agent", "general"):
        entries = values.get(group, [])
        values[group] = [
            SourceConfig(**_parse(SourceConfig, entry, f"{where}: data.{group}[{number}]"))
            for number, entry in enumerate(entries)
        ]
    return DataConfig(**values)


def _parse(kind: type, section: object, where: str) -> dict[str, Any]:
    """Return the keyword arguments for dataclass `kind` in a mapping read from YAML."""
    if not isinstance(section, dict):
        raise UserError(f"{where} must be a mapping, got {section!r}")
    fields = {item.name: item for item in dataclasses.fields(kind)}
    unknown = [key for key in section if key not in fields]
    if unknown:
        raise UserError(f"{where}.{unknown[0]} is not a known key; expected one of {', '.join(fields)}")
    missing = [
        name
        for name, item in fields.items()
        if name not in section and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where}.{missing[0]} is missing")
    types = get_type_hints(kind)
    return {key: _parse_value(types[key], value, f"{where}.{key}") for key, value in section.items()}


def _parse_value(kind: Any, value: object, where: str) -> object:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    expected = {
        str: (str, "text"),
        int: (int, "a whole number"),
        bool: (bool, "true or false"),
        float: (float, "a number"),
        str | None: (str | None, "text or null"),
    }.get(kind, (list, "a list"))
    accepted, meaning = expected
    if not isinstance(value, accepted) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where} must be {meaning}, got {value!r}")
    return value
