"""A run: its steps, its processes and its folder."""
