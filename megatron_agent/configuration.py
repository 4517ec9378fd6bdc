"""How this project reads configuration: YAML through jsonargparse, unknown and repeated keys refused.

Imports nothing heavy; jsonargparse and yaml are loaded on the first call.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_agent.errors import UserError

if TYPE_CHECKING:
    import jsonargparse


def config_parser(**options: Any) -> "jsonargparse.ArgumentParser":
    """Return an argument parser that reads YAML strictly and takes the help of fields from the text under them.

    `options` are jsonargparse's. Errors are raised as `jsonargparse.ArgumentError`; a key given twice in one mapping,
    of which YAML would silently keep the last, is one of them.
    """
    import jsonargparse
    import yaml

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    _plain_loader()  # before it is replaced
    jsonargparse.set_loader("yaml", load_yaml, exceptions=(yaml.YAMLError,))
    return jsonargparse.ArgumentParser(exit_on_error=False, **options)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, read as :func:`config_parser` reads it; `UserError` names the file."""
    import yaml

    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}; check --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping with sections such as `data` and `training`, got {content!r}")
    return content


def load_yaml(text: str) -> Any:
    """Load YAML with jsonargparse's rules for numbers (`75e-2` is one); repeated keys raise a YAMLError."""
    import yaml

    _refuse_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader))
    return _plain_loader()(text)


@functools.cache
def _plain_loader() -> Callable[[str], Any]:
    """jsonargparse's own YAML loader."""
    import jsonargparse

    loader: Callable[[str], Any] = jsonargparse.get_loader("yaml")
    return loader


def _refuse_repeated_keys(node: Any) -> None:
    import yaml

    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is given twice in one mapping; keep one", key.start_mark
                    )
                seen.add(key.value)
            _refuse_repeated_keys(value)
