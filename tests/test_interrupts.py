"""Ctrl-C at every stage of a command: one word, status 130, no traceback."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, train_options, write_options

# Starts a command as its console script does, and interrupts it when it asks for a module or calls a function
START = """
import os, signal, sys
import drct.cli

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            signal.raise_signal(signal.SIGINT)

class Lost:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

if {name!r} == "a destructor":
    drct.cli.main = lambda arguments: [Lost()].clear() or 0
elif {name!r} == "the interpreter's end":
    import atexit
    atexit.register(signal.raise_signal, signal.SIGINT)
    drct.cli.main = lambda arguments: 0
elif {name!r} == "the command":
    drct.cli.main = lambda arguments: signal.raise_signal(signal.SIGINT)
else:
    sys.meta_path.insert(0, Interrupt())
sys.argv = ["drct", *{arguments!r}]
drct.cli.entry_point()
"""


def start(name, *arguments):
    code = START.format(name=name, arguments=arguments)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def default():  # the tests may have been started by nohup
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=default,  # noqa: PLW1509
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("drct.commands.common", ["info"]),
        ("argparse", ["--help"]),
        ("torch", ["info", "DRCT-XS_SRx4"]),
        ("numpy", ["upscale", "lr", "-o", "out"]),
        ("torch._C", ["serve"]),
        ("basicsr", ["train", "-opt", "opt.yml"]),
        ("basicsr.data.paired_image_dataset", ["test", "-opt", "opt.yml"]),
        ("a destructor", []),
        ("the interpreter's end", []),
        ("the command", []),
    ],
)
def test_ctrl_c_is_one_word(pairs, name, arguments):
    write_options(pairs / "opt.yml", train_options())
    done = start(name, *arguments)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_process_that_ignores_ctrl_c_goes_on():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + START.format(
        name="argparse", arguments=["-V"]
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.split()[0]) == (0, "drct")
