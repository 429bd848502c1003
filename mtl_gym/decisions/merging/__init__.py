"""Which tasks share a layer: one copy replaces several, stage by stage."""
