"""What the Python scripts here share: `@check("claim")` runs the function below it and prints
`ok <claim>` or `not ok <claim>: reason`, which `run` counts; and where the cluster is."""

import contextlib
import os
import signal
import subprocess
import traceback

HOST = "127.0.0.1"


def port_of(address):
    return int(address.rpartition(":")[2])


LEADER = port_of(os.environ["SESHAT_LEADER"])
FOLLOWERS = [port_of(address) for address in os.environ["SESHAT_FOLLOWERS"].split()]
NODES = [LEADER, *FOLLOWERS]
# A node of its own, which asks for a password and has a port for TLS.
GUARDED = port_of(os.environ["SESHAT_GUARDED"])
GUARDED_TLS = port_of(os.environ["SESHAT_GUARDED_TLS"])
PASSWORD = os.environ["SESHAT_PASSWORD"]


def certificate(name):
    return os.path.join(os.environ["SESHAT_CERTIFICATES"], name)


_PIDS = dict(entry.split("=") for entry in os.environ["SESHAT_PIDS"].split())


def check(claim):
    def run(test):
        try:
            test()
            print("ok", claim, flush=True)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[1]
            reason = f"line {where.lineno}: {type(error).__name__}: {error}"
            print(f"not ok {claim}: {' | '.join(reason.splitlines())}", flush=True)
        return test

    return run


def equal(found, expected):
    assert found == expected, f"expected {short(expected)}, found {short(found)}"


def contains(text, part):
    assert part in text, f"expected {short(part)} in {short(text)}"


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-60:]}"


@contextlib.contextmanager
def raises(kind, text):
    """The block raises `kind`, and its message begins with `text`."""
    try:
        yield
    except kind as error:
        assert str(error).startswith(text), f"expected {text!r}, found {short(str(error))}"
    else:
        raise AssertionError(f"expected {kind.__name__} {text!r}, found no error")


def kill(port):
    """kill -9, so that nothing is handed over; `run` starts the node again afterwards."""
    os.kill(int(_PIDS[f"{HOST}:{port}"]), signal.SIGKILL)


@contextlib.contextmanager
def paused(ports):
    """These nodes do nothing, and their connections stay open, while the block runs."""
    pids = [int(_PIDS[f"{HOST}:{port}"]) for port in ports]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class Finished:
    """What a program printed, and how it ended."""

    def __init__(self, *command, stdin=""):
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)
        self.out, self.err, self.code = done.stdout, done.stderr, done.returncode
