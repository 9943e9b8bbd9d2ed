"""Damages of files: a flipped bit, a cut, an emptied and a deleted file."""

import pathlib
import random

# Flips and cuts have many places; emptied and deleted are one case per file.
_DAMAGES = ("flipped", "flipped", "flipped", "cut", "cut", "emptied", "deleted")


def list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns all files below a folder, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage(path: pathlib.Path, rng: random.Random, name: str = "") -> str:
    """Damages a file at random, and returns a phrase for the damage.

    Args:
      path: Path of the file.
      rng: Generator of the choice.
      name: Name of the file in the phrase; "" for its own.
    """
    name = name or path.name
    how, content = rng.choice(_DAMAGES), bytearray(path.read_bytes())
    if not content or how == "deleted":
        path.unlink()
        return f"{name} deleted"
    if how == "flipped":
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        return f"bit {bit} of byte {place} of {name} flipped"
    size = rng.randrange(len(content)) if how == "cut" else 0
    path.write_bytes(content[:size])
    return f"{name} cut to {size} of {len(content)} bytes"
