"""What the learner tries out, and what is said about the answer."""

from servinglab.exercises import lesson00, lesson01, lesson02
from servinglab.exercises.core import Exercise

__all__ = ["Exercise", "exercise"]

EXERCISES: dict[str, type[Exercise]] = {kind.id: kind for kind in (*lesson00.ALL, *lesson01.ALL, *lesson02.ALL)}


def exercise(name: str, *evidence: object) -> Exercise:
    """The exercise of that number ("00-3"), about this evidence (a server, a response, a record). Raises KeyError."""
    return EXERCISES[name](*evidence)
