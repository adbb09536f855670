"""Rows of a corpus as examples, in a seeded order."""
