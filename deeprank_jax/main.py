"""Trains a deep-ranking model: `python -m deeprank_jax.main --config=configs/x.py`.

Run without flags it trains the demo. Run again with the same flags it goes on where
it stopped.
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from deeprank_jax import parallel

_ROOT = pathlib.Path(__file__).parents[1]
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    str(_ROOT / "configs" / "emoji.py"),
    "The experiment; change a value by --config.batch_size=32.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is written; runs/<name of the config> if not given."
)


def main(argv: list[str]) -> None:
    """Reads the flags and trains."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}; flags begin with --.")
    parallel.configure_backend()
    # JAX reads its flags when it starts, so what starts it comes after.
    from deeprank_jax import checkpoints, train

    # Orbax logs stack traces of failures that we report in a sentence.
    handler = logging.get_absl_handler()
    handler.addFilter(lambda entry: "orbax" not in entry.pathname)
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = _WORKDIR.value or f"runs/{name}"
    try:
        report = train.train(_CONFIG.value, workdir)
    except (
        ValueError,
        OSError,
        checkpoints.CheckpointError,
        train.NonFiniteError,
    ) as e:
        logging.debug("The error's origin:", exc_info=True)
        sys.exit(f"deeprank_jax: {e}")
    print(f"Results: {pathlib.Path(workdir) / 'results.json'}\nReport:  {report}")


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    app.run(main)
