"""``python -m mtl_gym``: the command line."""

from mtl_gym.cli import main

if __name__ == "__main__":
    main()
