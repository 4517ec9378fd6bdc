"""Build the catalogue of the WebShop task out of the original product and goal files."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from megatron_agent.errors import UserError, run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.build_webshop_catalogue",
        description="Build one SQLite file (products, goals, full-text index) out of WebShop's JSON files, plain or "
        "gzip. A stopped build goes on where it was; a finished one of the same files is left as it is.",
        epilog="example: python -m data_prep.build_webshop_catalogue --products data/items_shuffle.json "
        "--attributes data/items_ins_v2.json --goals data/items_human_ins.json "
        "--output data/webshop_catalogue.sqlite",
    )
    parser.add_argument("--products", required=True, type=Path, help="items_shuffle.json or items_shuffle_1000.json")
    parser.add_argument("--attributes", required=True, type=Path, help="items_ins_v2.json or items_ins_v2_1000.json")
    parser.add_argument("--goals", required=True, type=Path, help="items_human_ins.json")
    parser.add_argument("--reviews", type=Path, help="reviews.json, which the original leaves unread (default: none)")
    parser.add_argument("--limit", type=int, help="take only so many products from the file's beginning (default: all)")
    parser.add_argument("--output", required=True, type=Path, help="catalogue file to write")
    arguments = parser.parse_args(argv)

    from tqdm import tqdm

    from megatron_agent.environments.webshop.build import Sources, build_catalogue
    from megatron_agent.environments.webshop.catalogue import Catalogue
    from megatron_agent.files import check_writable

    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit: expected at least 1, got {arguments.limit}")
    check_writable(arguments.output, "--output")
    sources = Sources(arguments.products, arguments.attributes, arguments.goals, arguments.reviews, arguments.limit)
    files = [path for path in (sources.products, sources.attributes, sources.goals, sources.reviews) if path]
    total = 2 * sum(path.stat().st_size for path in files if path.is_file())  # read for its hash, then for its records
    with tqdm(total=total, unit="B", unit_scale=True) as bar:

        def progress(name: str, read: int) -> None:
            bar.set_description(name, refresh=False)
            bar.update(read)

        outcome = build_catalogue(sources, arguments.output, progress)
    catalogue = Catalogue(arguments.output)
    print(f"{arguments.output}: {outcome}; products {catalogue.count():,}  goals {len(catalogue.tasks()):,}")
    catalogue.close()


if __name__ == "__main__":
    run_command(main)
