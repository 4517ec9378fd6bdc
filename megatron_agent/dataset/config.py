"""Configuration of the data: sources, their weights, eta, packing. Imports nothing heavy."""

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal, get_args

from megatron_agent.errors import UserError

EtaUnit = Literal["conversation", "token"]

SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-100, 1e100  # sums and shares of weights stay finite and above 0


@dataclass
class SourceConfig:
    """One indexed dataset and its weight among the sources of its group."""

    prefix: str
    """Path of the indexed dataset without ending, as given to `build_indexed_dataset --output-prefix`."""
    weight: float = 1.0
    """Share of this source in its group, in the unit of `eta_per`; weights of a group need not add up to 1."""
    name: str = ""
    """Name of the source in reports (default: the last part of its prefix). The order of its conversations depends
    on this name and the seed alone."""

    def __post_init__(self) -> None:
        self.name = self.name or PurePath(self.prefix).name


@dataclass
class DataConfig:
    """Agent and general conversations, mixed in the proportion eta, packed into rows."""

    agent: list[SourceConfig] = field(default_factory=list)
    """Sources of agent trajectories."""
    general: list[SourceConfig] = field(default_factory=list)
    """Sources of general conversations (AgentTuning: GPT-4 with weight 0.2, GPT-3.5 with weight 0.8)."""
    eta: float = 0.2
    """Share of the agent sources (AgentTuning: 0.2), in the unit of `eta_per`."""
    eta_per: EtaUnit = "conversation"
    """What eta and the weights are shares of: of `conversation` draws (AgentTuning), or of `token`s drawn."""
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
        if self.eta_per not in get_args(EtaUnit):
            raise UserError(f"data.eta_per must be one of {', '.join(get_args(EtaUnit))}, got {self.eta_per!r}")
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
                if not source.prefix:
                    raise UserError(f"{where}.prefix must not be empty (source {source.name!r})")
                if not source.name:  # a prefix such as `/`
                    raise UserError(f"{where}.name must not be empty, and prefix {source.prefix!r} gives none")
                if source.name in first_use:
                    raise UserError(
                        f"{where}.name {source.name!r} is already the name of {first_use[source.name]}; "
                        "give every source a name of its own"
                    )
                first_use[source.name] = where
                if not SMALLEST_WEIGHT <= source.weight <= LARGEST_WEIGHT:  # also refuses NaN
                    raise UserError(
                        f"{where}.weight must be a finite number above 0 ({SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}), "
                        f"got {source.weight} (source {source.name!r}); leave a source out to give it no weight"
                    )
