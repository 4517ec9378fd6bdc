"""Write the generated shop's files: `python -m data_prep.webshop_catalogue --output FOLDER`."""

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from megatron_agent.errors import run_command


def write_shop(output: Path, seed: int) -> None:
    """Write items_shuffle, items_ins_v2, items_human_ins and reviews as JSON, gzipped, one record a line."""
    from data_prep.webshop_catalogue.generator import generate_shop
    from megatron_agent.files import atomic_write

    for name, content in generate_shop(seed).items():
        if isinstance(content, dict):
            lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
            text = "{\n" + ",\n".join(lines) + "\n}\n"
        else:
            text = "[\n" + ",\n".join(json.dumps(record, ensure_ascii=False) for record in content) + "\n]\n"
        with atomic_write(output / f"{name}.json.gz", "wb") as handle:
            handle.write(gzip.compress(text.encode(), mtime=0))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write the files."""
    from data_prep.webshop_catalogue.generator import SEED

    parser = argparse.ArgumentParser(
        prog="python -m data_prep.webshop_catalogue",
        description="Generate a shop in the layout of WebShop's own files (items_shuffle, items_ins_v2, "
        "items_human_ins, reviews). With the default seed it is the shop that ships with the WebShop task.",
        epilog="example: python -m data_prep.webshop_catalogue --output runs/shop --seed 7, then "
        "python -m data_prep.build_webshop_catalogue on these files",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the four files")
    parser.add_argument("--seed", type=int, default=SEED, help=f"the same seed gives the same shop (default {SEED})")
    arguments = parser.parse_args(argv)
    write_shop(arguments.output, arguments.seed)


if __name__ == "__main__":
    run_command(main)
