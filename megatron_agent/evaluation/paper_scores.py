"""The held-in scores that the paper reports (Zeng et al. 2023, Table 4), to stand beside one's own."""

TASKS = ("alfworld", "webshop", "mind2web", "knowledge_graph", "operating_system", "database")
"""The six held-in tasks, in the order of the paper's tables."""

WEIGHTS = dict(zip(TASKS, (20.0, 28.0, 9.0, 16.0, 19.0, 12.0), strict=True))
"""Table 3's inverse weights, which reproduce all printed overall scores within 0.007."""

PAPER_SCORES: dict[str, dict[str, float]] = {
    model: dict(zip(TASKS, scores, strict=True))
    for model, scores in {
        "AgentLM-7B": (84.0, 63.6, 6.4, 18.1, 17.4, 30.6),
        "AgentLM-13B": (76.0, 70.8, 8.4, 26.8, 18.1, 33.7),
        "AgentLM-70B": (86.0, 64.9, 13.5, 47.0, 21.5, 37.7),
        "Llama-2-7B-chat": (2.0, 4.4, 3.7, 0.0, 8.3, 0.3),
        "Llama-2-13B-chat": (2.0, 7.2, 2.3, 0.0, 9.0, 1.3),
        "Llama-2-70B-chat": (6.0, 1.5, 0.2, 0.0, 9.0, 9.3),
        "GPT-3.5": (14.0, 67.2, 15.7, 27.2, 32.6, 15.0),
        "GPT-4": (78.0, 58.6, 22.6, 52.1, 36.8, 33.7),
    }.items()
}
"""100 times the main metric of each task, on AgentBench's `std` split."""

PAPER_OVERALL = {
    "AgentLM-7B": 1.96,
    "AgentLM-13B": 2.11,
    "AgentLM-70B": 2.55,
    "Llama-2-7B-chat": 0.19,
    "Llama-2-13B-chat": 0.20,
    "Llama-2-70B-chat": 0.27,
    "GPT-3.5": 1.59,
    "GPT-4": 2.75,
}
"""The overall score as printed; `overall_score` gives the same from `PAPER_SCORES` (within 0.007)."""
