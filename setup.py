"""Packages of the wheel: `deeprank_jax`, and `configs/` as `deeprank_jax.configs`."""

import setuptools

setuptools.setup(
    packages=[
        *setuptools.find_packages(include=["deeprank_jax*"]),
        "deeprank_jax.configs",
    ],
    package_dir={"deeprank_jax.configs": "configs"},
)
