"""pycriu's descriptions of the images, loaded from where CRIU's package put them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from criu_train.errors import EnvironmentUnfitError

_IMPLEMENTATION = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
_TIP = "run `criu-train setup`, which gets pycriu together with CRIU"


@cache
def image_schema(directory: Path | None) -> ModuleType:
    """The package ``pycriu.images`` below ``directory`` (None: an installed one).

    Only that package is loaded from there: ``sys.path`` stays as it is, so that protobuf and everything else come
    from our own installation. Raises EnvironmentUnfitError when it is missing or can't be loaded.
    """
    # Once protobuf has chosen its implementation, pycriu can't make it choose the slow one (it tries to on 3.14).
    importlib.import_module("google.protobuf.message")
    path, chosen = list(sys.path), os.environ.get(_IMPLEMENTATION)
    try:
        if directory is not None:
            _adopt("pycriu", directory / "pycriu")
        return importlib.import_module("pycriu").images  # type: ignore[no-any-return]
    except Exception as error:  # generated code fails in many ways on a protobuf that it does not fit
        sys.modules.pop("pycriu", None)
        raise EnvironmentUnfitError(f"pycriu can't be loaded from {directory}: {error}", tip=_TIP) from error
    finally:
        sys.path[:] = path  # pycriu appends a directory with a module named "images" in it
        if chosen is None:
            os.environ.pop(_IMPLEMENTATION, None)  # nothing of ours may show up in the training's environment


def _adopt(name: str, package: Path) -> None:
    """Import the package at this path under this name."""
    spec = importlib.util.spec_from_file_location(
        name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no package at {package}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
