"""Problems of the Operating System task, read from AgentBench's os_interaction files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_agent.chat.conversation import refuse_lone_surrogates
from megatron_agent.errors import UserError

OWN_SCRIPTS = Path(__file__).with_name("scripts")
"""This project's versions of the script files that AgentBench's problems name."""
LANGUAGES = ("bash", "python")
IMAGES = ("default", "packages", "ubuntu")


@dataclass(frozen=True)
class Script:
    """A program: its language (bash or python) and its text."""

    language: str
    code: str


@dataclass(frozen=True)
class Match:
    """What an answer is compared with: the same text (outer blanks apart if `strip`), or a regular expression."""

    answer: str | None = None
    regex: str | None = None
    strip: bool = True


@dataclass(frozen=True)
class OperatingSystemTask:
    """One problem. Either `match` or `check` says how it is judged; a None in `check` stands for `example`."""

    id: str
    description: str
    category: str
    image: str = "default"
    init: tuple[Script, ...] = ()
    start: Script | None = None
    match: Match | None = None
    check: tuple[Script | None, ...] = ()
    example: Script | None = None
    solution: tuple[str, ...] = ()


def read_tasks(path: Path, scripts: Path | None = None) -> list[OperatingSystemTask]:
    """Read a problem file, or AgentBench's folder `data/os_interaction/data` with the test problems in `1` ... `7`.

    A script that a problem names is looked for in `scripts`, AgentBench's `scripts` folder (the part for the
    problem's file first: `scripts/dev`, `scripts/1`), then in that folder beside the problems, then among this
    project's own. Raises UserError naming file, item and field for whatever is not understood.
    """
    if path.is_dir():
        files = [file for number in range(1, 8) for file in sorted((path / str(number)).glob("*.json"))]
        if not files:
            raise UserError(f"--tasks {path}: expected AgentBench's problems there, in 1/*.json to 7/*.json")
    else:
        files = [path]
    tasks: list[OperatingSystemTask] = []
    for file in files:
        group = file.parent.name if path.is_dir() else ""
        prefix = f"{group}-{file.stem}" if group else file.stem
        folders = _script_folders(file, group, scripts)
        for index, record in enumerate(_records(file)):
            tasks.append(_parse(record, f"{file} item {index}", f"{prefix}-{index}", group, folders))
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise UserError(f"{path}: id {task.id!r} is used twice; ids must be unique")
        seen.add(task.id)
    return tasks


def _script_folders(file: Path, group: str, scripts: Path | None) -> list[Path]:
    # AgentBench's own settings: dev.json goes with scripts/dev, train_0317 with scripts/7
    name = group or ("7" if file.parent.name == "train_0317" else file.stem)
    beside = file.parents[2 if group or name == "7" else 1] / "scripts" if len(file.resolve().parents) > 2 else None
    folders = []
    if scripts is not None:
        folders += [scripts / name, scripts]
    if beside is not None and (beside / name).is_dir():
        folders.append(beside / name)
    return [*folders, OWN_SCRIPTS]


def _records(file: Path) -> list[object]:
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: expected a JSON list of operating-system problems: {error}") from error
    if isinstance(records, dict):  # some test files hold a single problem
        records = [records]
    if not isinstance(records, list) or not records:
        raise UserError(f"{file}: expected a JSON list of operating-system problems, got {str(records)[:60]!r}")
    return records


def _parse(record: object, where: str, default_id: str, group: str, folders: Sequence[Path]) -> OperatingSystemTask:
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(record).__name__}")
    _refuse_unknown(record, "id description explanation create start evaluation example labels solution", where)
    refuse_lone_surrogates(json.dumps(record, ensure_ascii=False), where)
    create = record.get("create", {})
    if isinstance(create, list):  # one problem of dev.json and of 5/new.json: a slip, its check list copied here
        create = {}
    if not isinstance(create, dict):
        raise UserError(f'{where}: expected "create" to be an object, got {create!r}')
    _refuse_unknown(create, "local image init", f"{where}: create")
    image = _text(create.get("local", create.get("image", "default")), f"{where}: create.local").rpartition("/")[2]
    if image not in IMAGES:
        raise UserError(f'{where}: expected "create.local" to be one of {", ".join(IMAGES)}, got {image!r}')
    init = create.get("init", [])
    init = init if isinstance(init, list) else [init]
    evaluation = record.get("evaluation")
    if not isinstance(evaluation, dict):
        raise UserError(f'{where}: expected "evaluation" to be an object, got {evaluation!r}')
    _refuse_unknown(evaluation, "match check example", f"{where}: evaluation")
    if ("match" in evaluation) == ("check" in evaluation):
        raise UserError(f'{where}: expected "evaluation" to hold either "match" or "check"')
    # the example stands outside the evaluation in one problem of dev.json and two of the test set
    example = evaluation.get("example", record.get("example"))
    checks = evaluation.get("check", [])
    checks = checks if isinstance(checks, list) else [checks]
    solution = record.get("solution", [])
    if not isinstance(solution, list) or not all(isinstance(line, str) and line for line in solution):
        raise UserError(f'{where}: expected "solution" to be a list of texts, got {solution!r}')
    task = OperatingSystemTask(
        id=_text(record.get("id", default_id), f"{where}: id"),
        description=_text(record.get("description"), f"{where}: description"),
        category=_category(record.get("labels", []), group, where),
        image=image,
        init=tuple(_script(script, f"{where}: create.init", folders) for script in init),
        start=_script(record["start"], f"{where}: start", folders) if "start" in record else None,
        match=_match(evaluation["match"], f"{where}: evaluation.match") if "match" in evaluation else None,
        check=tuple(
            None if script is None else _script(script, f"{where}: evaluation.check", folders) for script in checks
        ),
        example=_script(example, f"{where}: example", folders) if example is not None else None,
        solution=tuple(solution),
    )
    if task.match is None and not task.check:
        raise UserError(f'{where}: expected "evaluation.check" to hold a script, got an empty list')
    if None in task.check and task.example is None:
        raise UserError(f'{where}: "evaluation.check" holds null, which stands for "evaluation.example"; it is missing')
    return task


def _script(value: object, where: str, folders: Sequence[Path]) -> Script:
    if isinstance(value, str):
        return Script("bash", value)
    if not isinstance(value, dict):
        raise UserError(f'{where}: expected a text, {{"code": ...}} or {{"file": ...}}, got {value!r}')
    _refuse_unknown(value, "language code file", where)
    language = value.get("language", "bash")
    if language not in LANGUAGES:
        raise UserError(f'{where}: expected "language" to be one of {", ".join(LANGUAGES)}, got {language!r}')
    if ("code" in value) == ("file" in value):
        raise UserError(f'{where}: expected either "code" or "file", got {", ".join(map(str, value)) or "neither"}')
    if "code" in value:
        return Script(language, _text(value["code"], f"{where}.code"))
    name = _text(value["file"], f"{where}.file")
    for folder in folders:
        file = (folder / name).resolve()
        if file.is_file() and file.is_relative_to(folder.resolve()):
            return Script(language, file.read_text(encoding="utf-8"))
    raise UserError(
        f"{where}.file: no script {name!r} in {', '.join(map(str, folders))}; pass AgentBench's "
        "data/os_interaction/scripts with --operating-system-scripts"
    )


def _match(value: object, where: str) -> Match:
    if isinstance(value, str):
        return Match(answer=value)
    if not isinstance(value, dict) or ("answer" in value) == ("regex" in value):
        raise UserError(f'{where}: expected a text, {{"answer": ...}} or {{"regex": ...}}, got {value!r}')
    _refuse_unknown(value, "answer regex strip", where)
    strip = value.get("strip", True)
    if not isinstance(strip, bool):
        raise UserError(f'{where}: expected "strip" to be true or false, got {strip!r}')
    if "answer" in value:
        return Match(answer=_text(value["answer"], f"{where}.answer"), strip=strip)
    return Match(regex=_text(value["regex"], f"{where}.regex"), strip=strip)


def _category(labels: object, group: str, where: str) -> str:
    """Return the group of a test problem, or the first label; the paper has no categories here."""
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise UserError(f'{where}: expected "labels" to be a list of texts, got {labels!r}')
    return group or (labels[0] if labels else "unlabelled")


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{where}: expected a non-empty text, got {value!r}")
    return value


def _refuse_unknown(value: dict[str, object], known: str, where: str) -> None:
    unknown = sorted(set(value) - set(known.split()))
    if unknown:
        raise UserError(f"{where}: unknown field {unknown[0]!r}; expected {', '.join(known.split())}")
