"""The websites of the shipped set: six of this project's own, as templates, and what people do on them."""

from megatron_agent.environments.mind2web.sites.information import BOOKEND, PANTRY
from megatron_agent.environments.mind2web.sites.leisure import CAMPFIRE, GEARSHED
from megatron_agent.environments.mind2web.sites.travel import SKYLARK, WAYFINDER

SITES = (SKYLARK, BOOKEND, GEARSHED, CAMPFIRE, WAYFINDER, PANTRY)
