"""The websites of the shipped set: six of this project's own, as templates, and what people do on them."""

from data_prep.mind2web_pages.information import BOOKEND, PANTRY
from data_prep.mind2web_pages.leisure import CAMPFIRE, GEARSHED
from data_prep.mind2web_pages.travel import SKYLARK, WAYFINDER

SITES = (SKYLARK, BOOKEND, GEARSHED, CAMPFIRE, WAYFINDER, PANTRY)
