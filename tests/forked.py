"""Python scripts in processes of their own that are forked from one which has imported PyTorch, BasicSR and drct.

Each such process saves the five seconds that these imports take a new interpreter. Everything else is as if it had been
started by its command: it has its own arguments, environment, output, process group and signal handlers.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = ["drct", "basicsr", "drct.runs.train", "drct.runs.test", "drct.runs.build", "drct.models.drct_model"]
PRELOADED += ["drct.commands.train", "drct.commands.test", "torch.utils.tensorboard"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def _run(script: str, arguments: list[str], environment: dict[str, str], output: str) -> None:
    """In the forked process: become what `python script arguments` starts."""
    import torch

    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", 1)))
    multiprocessing.set_start_method("fork", force=True)  # as a new interpreter has it, for the loaders' workers
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


class Forked:
    """`python script arguments`, in one process or in several as `torchrun` starts them. Both streams go to a file."""

    def __init__(self, script, *arguments, processes: int = 1, output: str = "output.txt", **environment: str) -> None:
        common = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        if processes > 1:
            common |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
        self.output = Path(output)
        self.output.touch()
        self.processes = []
        for i in range(processes):
            own = {"RANK": str(i), "LOCAL_RANK": str(i)} if processes > 1 else {}
            process = _context().Process(target=_run, args=(str(script), list(arguments), common | own, output))
            process.start()
            self.processes.append(process)

    def poll(self) -> int | None:
        """None while a process runs; else their exit status, that of the first to have failed if any has."""
        codes = [process.exitcode for process in self.processes]
        return None if None in codes else next((code for code in codes if code), 0)

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        status = self.poll()
        if status is None:
            self.kill()
            raise TimeoutError(f"still running after {timeout} s: {self.output.read_text()}")
        return status

    def kill(self) -> None:
        """SIGKILL the processes and their children."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # it may not lead its group yet
        for process in self.processes:
            process.join()


def _context():
    """The server of forks, which starts with the first use and ends with the tests."""
    context = multiprocessing.get_context("forkserver")
    if multiprocessing.forkserver._forkserver._forkserver_pid is None:
        before = dict(os.environ)
        # It takes no module search path from here but that of the environment
        os.environ |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]), "OMP_NUM_THREADS": "1"}
        try:
            context.set_forkserver_preload(PRELOADED)
            multiprocessing.forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)
    return context
