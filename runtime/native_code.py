"""Images of the native functions in modules of this folder: compiled once, then mapped from the cache."""

from __future__ import annotations

import importlib
import os

from ingot.lowering.image import Image
from ingot.lowering.llvm.target import Target
from ingot.runtime import cache as disk
from ingot.runtime import loader
from ingot.runtime.profile import counters


def stored(name: str, target: Target) -> loader.LoadedImage | None:
    """The image of the module `ingot.runtime.<name>` from the cache; neither the module nor a compiler is
    imported."""
    return disk.default().use("image", _key(name, target), loader.map_checked)


def compiled(name: str, target: Target) -> loader.LoadedImage:
    """The image compiled now, and put into the cache. Raises OSError where code cannot be loaded."""
    from ingot.lowering.llvm.codegen import compile_module
    from ingot.lowering.native.translate import translate

    module = importlib.import_module(f"ingot.runtime.{name}")
    image: Image = compile_module(translate(module, target), target)
    counters.natives_compiled += 1
    disk.default().put("image", _key(name, target), image.to_bytes(), alignment=loader.PAGE)
    return loader.load(image)


def _key(name: str, target: Target) -> str:
    with open(os.path.join(os.path.dirname(__file__), f"{name}.py"), "rb") as file:
        return disk.key("native", target.key, file.read())
