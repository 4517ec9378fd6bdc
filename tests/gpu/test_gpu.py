"""All checks on the GPUs of this machine; skipped where there is none. Results: see record.default_path."""

from pathlib import Path

import pytest
import torch

from tests.gpu.__main__ import CHECKS
from tests.gpu.record import default_path, write_result

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is False")


@pytest.mark.parametrize("check", CHECKS)
def test_check(check: str, tmp_path: Path) -> None:
    result = CHECKS[check]("cuda", tmp_path)
    write_result(check, "cuda", result, default_path(check))
    assert result["met"], result
