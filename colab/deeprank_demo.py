# ---
# jupyter:
#   accelerator: GPU
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: accelerator
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Image similarity by deep ranking
#
# Train a small network to rank emoji by similarity, inspect its results, search with
# an image of your own, and export the model. It takes about ten minutes on two
# CPU cores and less on a GPU or TPU (*Runtime → Change runtime type*).

# %% tags=["parameters"]
REPOSITORY = ""  # Git address of deeprank_jax; not needed in a clone of it.
WORK = "deeprank_demo"  # Folder for all files.
STEPS = 300  # Training steps.
TRAINING_FLAGS = []  # More arguments of `deeprank train`.

# %% [markdown]
# ## Install
#
# Installed packages, above all JAX, are not changed.

# %%
import importlib
import json
import pathlib
import subprocess
import sys


def run(*command):
    """Runs a command and shows its output line by line."""
    words = [str(word) for word in command]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        print(line, end="")
    if process.wait():
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")


def deeprank(*words):
    """Runs a command of deeprank, as it is installed, not of the source around it."""
    run(sys.executable, "-P", "-m", "deeprank_jax.cli", *words)


def find_package():
    """Returns what pip installs: the given repository, or the clone around here."""
    if REPOSITORY:
        return f"deeprank-jax[train,demo] @ git+{REPOSITORY}"
    here = pathlib.Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "deeprank_jax").is_dir() and (folder / "pyproject.toml").is_file():
            return f"{folder}[train,demo]"
    raise ValueError(
        f"deeprank_jax is not installed, and {here} is not in a clone of it; set "
        "REPOSITORY in the first cell to an address for git."
    )


probe = [sys.executable, "-P", "-c", "import deeprank_jax.configs"]
if subprocess.run(probe, capture_output=True).returncode:
    run(sys.executable, "-m", "pip", "install", "--quiet", find_package())
    importlib.invalidate_caches()

import deeprank_jax

work = pathlib.Path(WORK).absolute()
work.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Train
#
# 8,869 images of emoji in seven designs are prepared from an installed package: 539
# emoji for training, 620 others for the test. Stop the cell and run it again: training
# continues where it stopped. It runs in a process of its own, which leaves the GPU to
# the cells below.

# %%
data = f"--config.data.dir={work / 'data'}"
deeprank("prepare", "--config=emoji", data)
deeprank(
    "train", "--config=emoji", data, f"--workdir={work / 'run'}",
    f"--config.num_steps={STEPS}", f"--config.schedule.warmup_steps={STEPS // 4}",
    *TRAINING_FLAGS,
)  # fmt: skip

# %% [markdown]
# ## Numbers
#
# On emoji that are not in the training data, compared with the untrained network
# and plain pixels.

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
# ## Export the model
#
# One folder: weights, a program for CPU, GPU and TPU, and a card with the numbers.

# %%
if not (work / "model").exists():
    deeprank("export", f"--workdir={work / 'run'}", f"--out={work / 'model'}")
print((work / "model" / "README.md").read_text())

# %% [markdown]
# ## Make the test emoji searchable

# %%
index = work / "emoji.index"
deeprank(
    "index", "tfds:emoji/test",
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
    uploads = files.upload()
    image = next(iter(uploads), None)
if image is None:
    image = str(work / "disc.png")
    disc = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(disc).ellipse((16, 16, 112, 112), fill=(214, 40, 40))
    disc.save(image)

# %%
deeprank("search", image, f"--index={index}", "--k=15", f"--out={work / 'found.png'}")
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
# For your own photos, one folder per class: `deeprank train --config=folder`. See the
# project's README and `docs/`.
