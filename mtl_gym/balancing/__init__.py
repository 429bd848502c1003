"""Policies in anybody's own training loop, fed by the code that serves the environments."""
