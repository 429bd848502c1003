"""Comparisons of policies on the same instances: rollouts, results on disk, statistics, tables and pages."""
