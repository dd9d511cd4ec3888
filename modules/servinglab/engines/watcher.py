"""Runs one program and ends it when the process that asked for it is gone, however that ended.

Started as `python -I watcher.py PROGRAM ARGUMENT...` with a pipe from its owner as standard input. The owner's death
closes the pipe, also after `kill -9`; so does `Server.stop()`: there is one way to end an engine, and it is always tested.
A parent-death signal set by the owner would instead fire when the *thread* that started the engine ends.
Standard library only, because it starts with `-I` and must start fast.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading

GRACE = 2.0  # seconds between asking the program to end and ending it
LOOK = 0.5  # seconds between looks at the parent; a forked child of the owner may hold the pipe open after its death


def owner_is_gone(parent: int) -> None:
    """Return when the pipe is closed, or a byte has come through it, or the owner is no longer our parent."""
    if sys.platform == "win32":  # select() knows no pipes there, but nothing forks either
        sys.stdin.buffer.read(1)
        return
    while os.getppid() == parent:
        if select.select([0], [], [], LOOK)[0]:
            return


def end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


def die_with_watcher() -> None:
    """Linux: should the watcher itself be killed, the kernel ends the program. Its parent thread is the main thread."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def tie_on_windows(child: "subprocess.Popen[bytes]") -> None:
    """Windows: a job object that ends the program with the watcher. Written from Microsoft's reference, never yet run."""
    if sys.platform == "win32":
        KILL_ON_JOB_CLOSE, EXTENDED_LIMIT_INFORMATION, SET_QUOTA_AND_TERMINATE = 0x2000, 9, 0x101
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = kernel.OpenProcess.restype = ctypes.c_void_p
        limits = (ctypes.c_byte * 144)()  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION on 64-bit Windows; LimitFlags at byte 16
        ctypes.c_uint32.from_buffer(limits, 16).value = KILL_ON_JOB_CLOSE
        job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
        kernel.SetInformationJobObject(job, EXTENDED_LIMIT_INFORMATION, limits, len(limits))
        process = ctypes.c_void_p(kernel.OpenProcess(SET_QUOTA_AND_TERMINATE, False, child.pid))
        kernel.AssignProcessToJobObject(job, process)


def main() -> None:
    parent = os.getppid()
    litter = os.environ.pop("SERVINGLAB_LITTER", "")  # a file (the key's) that must not outlive the program
    tie = die_with_watcher if sys.platform == "linux" else None  # safe here: no thread has been started yet
    try:
        child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=tie)
    except OSError as error:  # not a program, or one for another machine
        sys.exit(f"{sys.argv[1]}: {error.strerror}")
    tie_on_windows(child)

    def follow_owner() -> None:
        owner_is_gone(parent)
        end(child)

    threading.Thread(target=follow_owner, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        code = child.wait()
        with contextlib.suppress(OSError):
            os.unlink(litter)
        os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
