"""The plan at the paper's size: 2,000 steps of 64 rows of 4,096 tokens over 1,866 + 3,670 + 57,096 conversations.

The same sources and lengths as tests/benchmarks/plan_speed.py, which times it.
"""

from typing import get_args

import numpy as np
import pytest

from megatron_agent.dataset.config import EtaUnit
from megatron_agent.dataset.draws import draws_for_token_shares
from megatron_agent.dataset.plan import make_plan
from megatron_agent.dataset.summary import group_share, summarize
from tests.benchmarks.plan_speed import ROWS, autocorrelations, conversation_lengths, sources_of_the_paper


def test_lengths_have_the_published_statistics() -> None:
    """ShareGPT: mean 1,706, median 1,957, p75 2,408, p99 3,520 tokens; AgentInstruct: 8,042,511 bytes at 4 a token."""
    agent, gpt4, gpt35 = conversation_lengths()
    assert [len(agent), len(gpt4), len(gpt35)] == [1866, 3670, 57096]
    for lengths in (gpt4, gpt35):
        assert lengths.mean() == pytest.approx(1706, abs=3)
        assert np.quantile(lengths, [0.5, 0.75, 0.99]) == pytest.approx([1957, 2408, 3520], abs=3)
        assert (lengths.min(), lengths.max()) >= (6, 4000)
    assert agent.mean() == pytest.approx(8_042_511 / 4 / 1866 + 40, rel=0.03)
    assert max(table.max() for table in (agent, gpt4, gpt35)) <= 4096


@pytest.mark.parametrize("eta_per", get_args(EtaUnit))
def test_bars_of_the_full_plan(eta_per: EtaUnit) -> None:
    lengths, sources, eta = conversation_lengths(), sources_of_the_paper(), 0.2
    if eta_per == "token":
        sources, eta = draws_for_token_shares(sources, lengths, eta)
    plan = make_plan(sources, lengths, eta, 4096, 1234, ROWS)
    summary = summarize(plan, sources, eta, lengths, lengths, 4096)
    assert len(plan) == ROWS == 128_000
    assert summary["fill"] >= 0.99
    assert group_share(summary, f"{eta_per}_share") == pytest.approx(0.2, abs=0.002)
    for name, share in {"agentinstruct": 0.2, "gpt4": 0.16, "gpt35": 0.64}.items():
        assert summary["sources"][name][f"expected_{eta_per}_share"] == pytest.approx(share)
        assert summary["sources"][name][f"{eta_per}_share"] == pytest.approx(share, abs=0.0025)
    # 128,000 independent rows correlate at 0 with a standard error of 0.0028
    assert max(map(abs, autocorrelations(plan, lengths).values())) < 0.012
    # a row follows from its number: another plan that was asked for far fewer rows has the same ones
    short = make_plan(sources, lengths, eta, 4096, 1234, 3000)
    for number in (0, 63, 64, 1500, 2999):
        assert [part.tolist() for part in short.row(number)] == [part.tolist() for part in plan.row(number)]
