"""Every policy on the same instances: rollouts, results on disk, statistics, tables and pages."""
