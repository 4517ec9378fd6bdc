"""Agents: a chat client, the episode loop, and the record of what was played."""
