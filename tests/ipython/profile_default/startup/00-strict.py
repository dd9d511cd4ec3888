"""Loaded by every kernel that the tests start. `--nbval-lax` would pass a failing `!command` and an unknown magic."""

from IPython import get_ipython
from IPython.core.error import UsageError


def make_strict(shell):
    system, getoutput = shell.system, shell.getoutput

    def strict_system(command):
        system(command)
        code = shell.user_ns.get("_exit_code", 0)
        if code:
            raise RuntimeError(f"the command {command!r} ended with exit code {code}")

    def strict_getoutput(command, *arguments, **options):
        import subprocess

        done = subprocess.run(shell.var_expand(command, depth=2), shell=True, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"the command {command!r} ended with exit code {done.returncode}")
        return getoutput(command, *arguments, **options)

    shell.system, shell.getoutput = strict_system, strict_getoutput
    # An unknown magic is a UsageError, which IPython only prints. Shown as an error it turns the cell red.
    shell.show_usage_error = lambda error: shell._showtraceback(UsageError, error, [f"UsageError: {error}"])


make_strict(get_ipython())
