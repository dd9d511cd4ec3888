"""The models that the course brings along, and their files."""

from servinglab.models.files import NAMES, check, gguf_path

__all__ = ["NAMES", "check", "gguf_path"]
