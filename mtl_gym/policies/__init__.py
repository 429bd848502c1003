"""Policies: their interface (protocol), how they are found (finding) and named (grammar)."""
