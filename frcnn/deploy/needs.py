"""Packages that only exporting and deploying need."""

import importlib.util

from frcnn.errors import RunError


def need(*packages: str) -> None:
    """Stop with the way to get them unless all packages are there.

    Raises:
        RunError: names those that are not.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        hint = "pip install 'frcnn[export]'"
        raise RunError("needs packages that are not installed", found=", ".join(missing), hint=hint)
