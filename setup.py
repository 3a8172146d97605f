"""Packages are found in the three folders that form `weft`; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = {"weft": "modeling", "weft.recipes": "recipes", "weft.tokenizer": "tokenizer"}

setup(
    packages=[
        name
        for package, folder in FOLDERS.items()
        for name in (package, *(f"{package}.{inner}" for inner in find_packages(folder)))
    ]
)
