"""Measuring a server from outside: this room knows a URL and nothing else of an engine."""

from servinglab.bench.client import Record, ask, ask_all

__all__ = ["Record", "ask", "ask_all"]
