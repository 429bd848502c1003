"""The environments, created by id with ``gymnasium.make`` and ``gymnasium.make_vec``."""
