"""Laws beyond the additive one, each a small value: its names, its ln L with slopes, and where the search starts."""
