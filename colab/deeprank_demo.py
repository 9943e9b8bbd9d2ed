# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   accelerator: GPU
# ---

# %% [markdown]
# # Image similarity by deep ranking
#
# Train a small network to rank emoji by similarity, look at what it finds, ask it about
# an image of your own, and take the model with you. It takes some ten minutes on two
# CPU cores and less on a GPU or TPU (*Runtime → Change runtime type*).

# %% tags=["parameters"]
REPOSITORY = ""  # Where to clone deeprank_jax from, if it is not installed.
WORK = "deeprank_demo"  # Everything is written into this folder.
STEPS = 300
TRAINING_FLAGS = []  # More flags of deeprank_jax.main.

# %% [markdown]
# ## Install
#
# What is installed already, JAX for this machine above all, stays as it is.

# %%
import importlib.util
import json
import os
import pathlib
import subprocess
import sys


def run(*command):
    """Runs a command and shows what it says, line by line."""
    words = [str(word) for word in command]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        print(line, end="")
    if process.wait():
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")


if importlib.util.find_spec("deeprank_jax") is None:
    if not REPOSITORY:
        raise ValueError("Set REPOSITORY in the first cell to an address for git.")
    run("git", "clone", "--depth=1", REPOSITORY, "deeprank_jax_source")
    run(sys.executable, "-m", "pip", "install", "--quiet", "-e", "deeprank_jax_source")
    sys.path.insert(0, "deeprank_jax_source")

import deeprank_jax
from deeprank_jax.distributed import backend

root = pathlib.Path(deeprank_jax.__file__).parents[1]
work = pathlib.Path(WORK).absolute()
work.mkdir(parents=True, exist_ok=True)
# The tools and configs lie beside the package.
os.environ["PYTHONPATH"] = str(root)
backend.configure_backend()

# %% [markdown]
# ## Train
#
# 8,869 emoji of seven designs are prepared from an installed package: 539 emoji to
# learn from, 620 others to be asked about. Stop the cell and run it again: it goes on
# where it stopped. The training runs in a process of its own, which leaves the GPU to
# the cells below.

# %%
config = f"--config={root / 'configs' / 'emoji.py'}"
data = f"--config.data.dir={work / 'data'}"
run(sys.executable, "-m", "deeprank_jax.cli", "prepare", config, data)
run(
    sys.executable, "-m", "deeprank_jax.main", config, data,
    f"--workdir={work / 'run'}", f"--config.num_steps={STEPS}", *TRAINING_FLAGS,
)  # fmt: skip

# %% [markdown]
# ## Numbers
#
# Of emoji the model never saw, beside the same network before training and plain
# pixels.

# %%
results = json.loads((work / "run" / "results.json").read_text())["test"]
print(f"{'test split':30}{'model':>10}{'untrained':>10}{'pixels':>10}")
for evaluator, names in (
    ("retrieval", ("recall@1", "map@r", "ndcg@10")),
    ("triplets", ("precision",)),
):
    for name in names:
        row = results[evaluator][name]
        cells = (row["model"], row["untrained"], row["pixels"])
        print(f"{evaluator + ' ' + name:30}" + "".join(f"{x:10.3f}" for x in cells))
print(f"The whole report: {work / 'run' / 'report' / 'index.html'}")

# %% [markdown]
# ## Take the model with you
#
# One folder: weights, a program for CPU, GPU and TPU, a card that says how good it is.

# %%
if not (work / "model").exists():
    run(
        sys.executable, "-m", "deeprank_jax.cli", "export",
        f"--workdir={work / 'run'}", f"--out={work / 'model'}",
    )  # fmt: skip
print((work / "model" / "README.md").read_text())

# %% [markdown]
# ## Make the test emoji searchable

# %%
index = work / "emoji.index"
run(
    sys.executable, "-m", "deeprank_jax.cli", "index", "tfds:emoji/test",
    f"--model={work / 'model'}", f"--data_dir={work / 'data'}", f"--out={index}",
)  # fmt: skip

# %% [markdown]
# ## An image of your own
#
# On Colab a button lets you choose a file. Elsewhere set `image` to a path; until then
# a red disc is drawn.

# %%
from IPython import display
from PIL import Image, ImageDraw

image = None
try:
    from google.colab import files
except ImportError:
    pass
else:
    chosen = files.upload()
    image = next(iter(chosen), None)
if image is None:
    image = str(work / "disc.png")
    disc = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(disc).ellipse((16, 16, 112, 112), fill=(214, 40, 40))
    disc.save(image)

# %%
run(
    sys.executable, "-m", "deeprank_jax.cli", "search", image, f"--index={index}",
    "--k=15", f"--out={work / 'found.png'}",
)  # fmt: skip
display.display(display.Image(str(work / "found.png")))

# %% [markdown]
# ## In Python
#
# An exported model takes paths, PIL images and arrays.

# %%
model = deeprank_jax.load(work / "model")
square = Image.new("RGB", (128, 128), "white")
ImageDraw.Draw(square).rectangle((16, 16, 112, 112), fill=(40, 80, 214))
print(model.embed([image, square]).shape)
print(model.compare(image, square))

# %% [markdown]
# Your own photos, one folder per class: `configs/folder.py`. More: the project's README
# and `docs/`.
