"""`python -m tests.gpu CHECK [--device cuda|cpu] [--json F]`: run one check and record hardware and result."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.gpu.attention import thd_against_dense
from tests.gpu.comparisons import fused_adam, layouts, precisions, round_trip, spec_against_spec
from tests.gpu.mfu import mfu
from tests.gpu.record import default_path, write_result
from tests.gpu.whole_runs import evaluation, lora, resume

CHECKS: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "attention": thd_against_dense,
    "specs": spec_against_spec,
    "precisions": precisions,
    "mfu": mfu,
    "layouts": layouts,
    "adam": fused_adam,
    "round_trip": round_trip,
    "evaluation": evaluation,
    "resume": resume,
    "lora": lora,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exit status 1 when the check is not met."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a tiny rehearsal")
    help_json = "where the result goes (default: $AGENTLM_GPU_RESULTS or tests/gpu/results; cpu: nowhere)"
    parser.add_argument("--json", type=Path, help=help_json)
    parsed = parser.parse_args(arguments)
    if parsed.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU here: torch.cuda.is_available() is False (a rehearsal on the CPU: --device cpu)")
    with tempfile.TemporaryDirectory() as folder:
        result = CHECKS[parsed.check](parsed.device, Path(folder))
    print(json.dumps(result, indent=1))
    path = parsed.json or (default_path(parsed.check) if parsed.device == "cuda" else None)
    if path:
        write_result(parsed.check, parsed.device, result, path)
        print(f"wrote {path}")
    sys.exit(0 if result["met"] else 1)


if __name__ == "__main__":
    main()
