"""Where things are: the repository's data, the learner's own folders, and the caches on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

ROOT = Path(__file__).resolve().parents[2]
"""The repository. The package is always installed in place (`pip install -e`), because it reads `data/`."""

DATA = ROOT / "data"
TUTOR = DATA / "tutor"
NOTEBOOKS = ROOT / "notebooks"
WORK = Path(os.environ.get("SERVINGLAB_WORK") or ROOT / "work")
"""The learner's own folder. On a hub, where the course lies in a read-only place, `SERVINGLAB_WORK` names another."""

INDEX = "차례.md"
"""The table of lessons, in `WORK`: JupyterLab opens there."""


def cache_dir() -> Path:
    """Folder for files that can be made again (GGUF files, logs).

    `SERVINGLAB_CACHE` names it; a hub points all learners at one folder, which may be read-only once filled.
    """
    named = os.environ.get("SERVINGLAB_CACHE", "").strip()
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("servinglab"))


def home_dir() -> Path:
    """Folder for what is the learner's own and cannot be made again (progress, pulled models). `SERVINGLAB_HOME` names it."""
    named = os.environ.get("SERVINGLAB_HOME", "").strip()
    return Path(named).expanduser() if named else Path(platformdirs.user_data_dir("servinglab"))


def log_dir() -> Path:
    """Folder for the engines' logs: the learner's own, never a shared or read-only cache."""
    return Path(platformdirs.user_state_dir("servinglab")) / "logs"
