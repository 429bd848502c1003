"""Policies: their interface (protocol), how they are found (finding) and named (grammar), and their answers (answers)."""
