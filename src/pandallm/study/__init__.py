"""A grid over a recipe (to come): one table, one report."""
