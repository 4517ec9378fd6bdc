"""MySQL on SQLite: statements translated, functions added, results and errors as MySQL writes them."""
