"""The WebShop task as the harness knows it."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from megatron_agent.environments.base import EnvironmentFault
from megatron_agent.environments.choices import check_choice
from megatron_agent.environments.scores import mean, reward_by_category
from megatron_agent.environments.task_kind import EpisodeScore, TaskKind, World, WorldOptions
from megatron_agent.environments.webshop.build import Sources, build_catalogue
from megatron_agent.environments.webshop.catalogue import BUILD, Catalogue
from megatron_agent.environments.webshop.environment import INSTRUCTIONS, WebShopEnvironment, opening_messages
from megatron_agent.environments.webshop.expert import webshop_expert
from megatron_agent.environments.webshop.goal import SPLITS
from megatron_agent.environments.webshop.search import LuceneSearch, SearchEngine, SqliteSearch
from megatron_agent.environments.webshop.title_words import TitleWords, content_words, spacy_nouns
from megatron_agent.errors import UserError

_FOLDER = Path(__file__).with_name("shipped")
SHIPPED = Sources(
    products=_FOLDER / "items_shuffle.json.gz",
    attributes=_FOLDER / "items_ins_v2.json.gz",
    goals=_FOLDER / "items_human_ins.json.gz",
    reviews=_FOLDER / "reviews.json.gz",
)
"""The shop of `data_prep/webshop_catalogue`, in the layout of the original files."""
CATALOGUE_NAME = "webshop_catalogue.sqlite"
WHOLE_SPLITS = ("std", "dev")
"""Splits that are played whole or not at all: a score of a part of them would pass for one of AgentBench's."""


@dataclass(frozen=True)
class WebShopOptions(WorldOptions):
    """How the shop is opened."""

    webshop_spacy_model: str | None = field(
        default=None,
        metadata={
            "help": "spaCy model that finds the nouns of titles, such as AgentBench's en_core_web_lg "
            "(default: a rule without spaCy; scores differ a little)"
        },
    )
    webshop_lucene_index: Path | None = field(
        default=None,
        metadata={"help": "folder of the original's Lucene index, searched with pyserini (default: SQLite)"},
    )


@contextmanager
def open_webshop(options: WebShopOptions) -> Iterator[World]:
    """Open the catalogue and the search engine; all environments share them."""
    if find_spec("thefuzz") is None:
        raise UserError("webshop: the package thefuzz is missing; run pip install 'agentlm-megatron[webshop]'")
    opening = opening_messages(options)
    with ExitStack() as stack:
        path = find_catalogue(options)
        if path is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="webshop-"))) / CATALOGUE_NAME
            build_catalogue(SHIPPED, path)
        catalogue = stack.enter_context(closing(Catalogue(path)))
        try:
            tasks = catalogue.tasks(*SPLITS[options.split]) if options.split else catalogue.tasks()
        except EnvironmentFault as error:
            raise UserError(
                f"--tasks {path}: the catalogue is damaged ({error}); build it again with {BUILD}"
            ) from error
        first, end = SPLITS[options.split] if options.split else (0, 1)
        if not tasks or (options.split in WHOLE_SPLITS and len(tasks) < end - first):
            raise UserError(
                f"--tasks {path}: expected goals from number {first} to {end - 1}, it holds {len(catalogue.tasks())}; "
                f"choose another --split, or build the catalogue from more of the original's products with {BUILD}"
            )
        engine: SearchEngine = SqliteSearch(catalogue)
        if options.webshop_lucene_index is not None:
            engine = LuceneSearch(options.webshop_lucene_index, catalogue)
        stack.enter_context(closing(engine))
        title_words: TitleWords = content_words
        title_rule = "content words"
        if options.webshop_spacy_model is not None:
            title_words, title_rule = spacy_nouns(options.webshop_spacy_model)
        facts = {
            "catalogue": catalogue.facts["key"],
            "search": "lucene" if options.webshop_lucene_index is not None else "sqlite fts5",
            "title_words": title_rule,
        }
        yield World(
            tasks,
            lambda: WebShopEnvironment(catalogue, engine, title_words, opening, options.prompt_style),
            facts,
        )


def find_catalogue(options: WorldOptions) -> Path | None:
    """Return the catalogue file of `--tasks`, or None for the shipped shop; UserError when there is none."""
    if options.split is not None:
        check_choice("--split", options.split, tuple(SPLITS))
    path = options.tasks
    if path is None:
        if options.split is not None:
            raise UserError(f"--split {options.split}: needs --tasks with the catalogue of the original data")
        return None
    if path.is_dir():
        if (path / CATALOGUE_NAME).is_file():
            return path / CATALOGUE_NAME
        raise UserError(
            f"--tasks {path}: expected {CATALOGUE_NAME} there, found none; build it from the original files: {BUILD} "
            f"--products {path}/items_shuffle.json --attributes {path}/items_ins_v2.json "
            f"--goals {path}/items_human_ins.json --output {path}/{CATALOGUE_NAME}"
        )
    if not path.is_file():
        raise UserError(f"--tasks {path}: no such file or folder")
    return path


def webshop_scores(episodes: Sequence[EpisodeScore]) -> dict[str, float]:
    """Return the mean reward, which the paper reports, and what it is made of.

    `reward_without_task_errors` has the evaluator's denominator: it drops episodes that its own machinery lost.
    `r_type`, `r_attribute`, `r_option` and `r_price` are means over purchases.
    """
    if not episodes:
        return {"reward": 0.0}
    played = [episode for episode in episodes if episode.status != "task error"]
    scores = {
        "reward": mean(episode.reward for episode in episodes),
        "reward_without_task_errors": mean(episode.reward for episode in played),
        "success_rate": mean(episode.reward == 1.0 for episode in episodes),
        "purchase_rate": mean(episode.status == "completed" for episode in episodes),
        "format_fail_rate": mean(episode.status == "invalid format" for episode in episodes),
    }
    for part in ("r_type", "r_attribute", "r_option", "r_price"):
        values = [episode.scores[part] for episode in episodes if part in episode.scores]
        if values:
            scores[part] = mean(values)
    return scores | {f"{name}_reward": reward for name, reward in reward_by_category(episodes).items()}


TASK_KIND = TaskKind(
    name="webshop",
    title="WebShop",
    options=WebShopOptions,
    open=open_webshop,
    metrics=webshop_scores,
    main_metric="reward",
    weight=28.0,
    expert=webshop_expert,
    prompt_styles=tuple(INSTRUCTIONS),
)
