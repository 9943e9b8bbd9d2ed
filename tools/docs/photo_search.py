r"""Picture of a search among photographs: pieces of scikit-image's sample pictures.

  python -m tools.docs.photo_search --out=docs/photo_search.png

Each of nine pictures that may be used freely is cut into nine pieces. They are indexed
by EfficientNet-Lite0, which is not trained on them, and one is searched for.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

from PIL import Image
import skimage

# Pictures in the public domain or under CC0, by the name that their pieces get.
PICTURES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
QUERY = "coffee/4.jpg"


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.photo_search")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("docs/photo_search.png"),
        help="file to write (default: %(default)s)",
    )
    out = parser.parse_args().out.absolute()
    with tempfile.TemporaryDirectory() as folder:
        write_pieces(pathlib.Path(folder) / "photos")
        _run(folder, "index", "photos", "--model=efficientnet_lite0", "--out=index")
        query = f"photos/{QUERY}"
        _run(folder, "search", query, "--index=index", "--k=7", f"--out={out}")


def write_pieces(folder: pathlib.Path) -> None:
    """Cuts each picture into three rows of three pieces, in a folder of its name.

    Args:
      folder: Folder to write to.
    """
    samples = pathlib.Path(skimage.__file__).parent / "data"
    for name, file in PICTURES.items():
        with Image.open(samples / file) as opened:
            picture = opened.convert("RGB")
        side = min(picture.size) // 3
        margins = [(size - 3 * side) // 2 for size in picture.size]
        (folder / name).mkdir(parents=True)
        for number in range(9):
            row, column = divmod(number, 3)
            x, y = margins[0] + column * side, margins[1] + row * side
            piece = picture.crop((x, y, x + side, y + side))
            piece.save(folder / name / f"{number}.jpg", quality=92)


def _run(folder: str, *words: str) -> None:
    """Runs a command of deeprank in a folder."""
    root = pathlib.Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "deeprank_jax.cli", *words],
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


if __name__ == "__main__":
    main()
