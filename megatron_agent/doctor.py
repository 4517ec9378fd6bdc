"""`python -m megatron_agent.doctor`: is this installation usable, what will be used, what is missing?"""

import argparse
import json
import sys
from collections.abc import Sequence

from megatron_agent.errors import run_command
from megatron_agent.files import atomic_write, check_writable

EXIT_NOT_USABLE = 1
DESCRIPTION = """\
Check this installation: Python, torch, megatron-core and the other libraries, Transformer Engine, apex and
flash-attention (whether they import with this torch, in a process of their own), GPUs and driver, an all-reduce of one
process over gloo and NCCL, the tokenizer, and write access. Says in a table what is found, what training will use and
how to mend what is not well, and ends with a verdict. Exit status: 0 usable, 1 not usable, 2 bad arguments.
"""
EXAMPLE = """\
examples:
  python -m megatron_agent.doctor
  python -m megatron_agent.doctor --config launch/configs/agentlm_7b.yaml --expect gpu
  python -m megatron_agent.doctor --expect image --quiet --output-dir /tmp       # last step of an image's build
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with status 1 when the installation is not usable."""
    parser = argparse.ArgumentParser(
        prog="python -m megatron_agent.doctor",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--expect",
        choices=("auto", "gpu", "cpu", "image"),
        default="auto",
        help="what the installation is for: gpu: GPUs must work; cpu: no GPU is needed; image: libraries for GPUs must "
        "be there, a driver need not; auto (default): gpu where a driver is, else cpu",
    )
    parser.add_argument("--config", metavar="C.yaml", help="training configuration: its kernels, tokenizer and folder")
    parser.add_argument("--tokenizer", metavar="PATH", help="tokenizer file or folder (default: beside the model)")
    parser.add_argument(
        "--output-dir", metavar="DIR", help="folder to write into (default: the configuration's, else this folder)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON; `-` prints them instead of tables")
    parser.add_argument("--quiet", action="store_true", help="print what is wrong and the verdict only")
    options = parser.parse_args(arguments)

    if options.json not in (None, "-"):
        check_writable(options.json, "--json")
    config = None
    if options.config is not None:
        from megatron_agent.training.config import parse_config

        config = parse_config(["--config", options.config])
    from megatron_agent.installation.examine import examine
    from megatron_agent.installation.table import as_json, print_examination

    examination = examine(options.expect, config, options.tokenizer, options.output_dir)
    text = json.dumps(as_json(examination), indent=1)
    if options.json == "-":
        print(text)
    else:
        print_examination(examination, quiet=options.quiet)
    if options.json not in (None, "-"):
        with atomic_write(options.json) as file:
            file.write(text + "\n")
    if examination.errors:
        sys.exit(EXIT_NOT_USABLE)


if __name__ == "__main__":
    run_command(main)
