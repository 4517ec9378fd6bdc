"""ALFWorld games of our own: rooms from alfworld's inventories, goals that can be reached by construction."""
