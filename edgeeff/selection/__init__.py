"""Which variant fits the budget, and which file ships."""
