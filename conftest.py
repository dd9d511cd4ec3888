"""Surroundings of every test and every notebook: folders of their own, no settings of the person who runs them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
STRICT = ROOT / "tests" / "ipython"
"""An IPython profile that turns failing `!` commands and unknown magics into errors, for the notebooks' kernels too."""


def pytest_configure(config: pytest.Config) -> None:
    folder = Path(tempfile.mkdtemp(prefix="servinglab-test-"))
    config.add_cleanup(lambda: remove(folder))
    for name in [name for name in os.environ if name.startswith(("LLAMA_", "SERVINGLAB_", "OPENAI_"))]:
        del os.environ[name]
    os.environ["SERVINGLAB_MODEL"] = ""  # else that of the `.env` of whoever runs the tests would stand in for the tutor
    os.environ["SERVINGLAB_CACHE"] = str(folder / "cache")
    os.environ["SERVINGLAB_HOME"] = str(folder / "home")
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    shutil.copytree(STRICT, folder / "ipython")  # a copy, because IPython writes its history there
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # a server's last log line may arrive meanwhile; the folder is temporary
