"""The environments. They are made by their ids, with ``gymnasium.make`` and ``gymnasium.make_vec``."""
