"""Trains a deep-ranking model: `python -m deeprank_jax.main` is `deeprank train`.

Without arguments it trains the demo. The same command again continues where it stopped.
"""

import sys

from deeprank_jax.cli.__main__ import main as run_command


def main() -> None:
    """Runs `deeprank train` with the arguments of the process."""
    sys.argv[1:1] = ["train"]
    run_command()


if __name__ == "__main__":
    main()
