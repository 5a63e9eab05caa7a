"""Kill runs at random moments, fill their disk, and compare what comes of them with runs that nothing disturbed."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU does not survive a fork
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from conftest import HAT_TINY, ROOT, network_options, photo, test_options, train_options, write_options
from forked import Forked

from drct.archs.drct_arch import DRCT
from drct.data.prepare import reduce_image
from fuzz import summary
from fuzz.disk import SmallDisk
from fuzz.pool import members_of

COMMAND = str(ROOT / "drct" / "__main__.py")
SCALE = 2
NETWORK = {"embed_dim": 12, "gc": 4, "depths": [2], "num_heads": [2], "window_size": 4, "img_size": 16}
ITERATIONS = 12
PATIENCE = 15.0  # seconds in which loader workers and peers notice that a process was killed
LAST = 30.0  # seconds more in which they end when asked to, as torchrun asks the peers
LONGEST = 300  # seconds of an undisturbed run
SHARES = {
    "train": 30,
    "train in 2 processes": 25,
    "train HAT": 10,
    "train HAT in 2 processes": 10,
    "train on a full disk": 12,
    "upscale": 12,
    "upscale on a full disk": 5,
    "test": 11,
    "test on a full disk": 5,
    "train Real-DRCT": 5,
    "train Real-DRCT in 2 processes": 5,
    "train Real-DRCT's GAN": 5,
    "train Real-DRCT's GAN in 2 processes": 5,
}  # of the kills
DEGRADED = {
    "model_type": "RealDRCTMSEModel",
    "queue_size": 4,
    "resize_modes": ["antialiased"],
    "blur_prob": 0.5,
    "noise_range2": [0, 10],
    "jpeg_range2": [30, 95],
}
ADVERSARIAL = DEGRADED | {
    "model_type": "RealDRCTGANModel",
    "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8},
}


@dataclass
class Tally:
    """What was done to the runs of a scenario, and what was wrong."""

    kills: int = 0
    fills: int = 0
    completed: int = 0
    faults: list[str] = field(default_factory=list)


class Scenario:
    """Runs in a folder of their own. `prepare` and `check_after_kill`, `check_at_end` are those of a command."""

    processes = 1
    disk: SmallDisk | None = None

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng, self.tally = folder, rng, Tally()
        self.round = 0
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        make_pictures()
        self.length = 0.0

    def arguments(self, name: str) -> list[str]:
        raise NotImplementedError

    def check(self, name: str, ended: bool) -> None:
        raise NotImplementedError

    def start(self, name: str) -> Forked:
        output = self.folder.parent / f"{self.folder.name}_output.txt"  # not on a disk that may be full
        output.write_text("")
        return Forked(COMMAND, *self.arguments(name), processes=self.processes, output=str(output))

    def fault(self, what: str) -> None:
        if what not in self.tally.faults:
            print(f"  {self.folder.name}: {what}", flush=True)
            self.tally.faults.append(what)

    def run(self, kills: int) -> Tally:
        """Kill runs until there have been so many kills, and let each run end at last."""
        os.chdir(self.folder)
        Forked(COMMAND, "--version").wait()  # starts the server of forks, which takes seconds
        started = time.monotonic()
        whole = self.start("whole")
        if status := whole.wait(LONGEST):
            raise RuntimeError(f"the undisturbed run ended with status {status}: {whole.output.read_text()[-2000:]}")
        self.length = time.monotonic() - started
        name = f"run{self.round}"
        while self.tally.kills < kills:
            if self.disturb(name):
                self.finished(name)
                name = f"run{self.round}"
        self.complete(name)
        return self.tally

    def disturb(self, name: str) -> bool:
        """Start a run and kill it, or fill its disk, at a random moment. Returns whether it ended before."""
        run = self.start(name)
        moment = time.monotonic() + self.rng.uniform(0, 0.9 * self.length)
        filled = self.disk is not None and self.rng.random() < 0.5
        while time.monotonic() < moment and run.poll() is None:
            time.sleep(0.005)
        if run.poll() is None and filled:
            self._fill(run)
        if run.poll() is None:
            os.kill(self.rng.choice(run.processes).pid, signal.SIGKILL)
            self.tally.kills += 1
            self._wait_for_the_others(run)
            self.check(name, ended=False)
            return False
        run.wait()
        return self._ended(run, name, filled)

    def _fill(self, run: Forked) -> None:
        assert self.disk
        self.disk.fill(self.rng.choice((0, 1000, 30_000, 300_000)))
        self.tally.fills += 1
        deadline = time.monotonic() + self.rng.uniform(1, self.length)
        while time.monotonic() < deadline and run.poll() is None:
            time.sleep(0.01)

    def _ended(self, run: Forked, name: str, filled: bool) -> bool:
        if self.disk:
            self.disk.free()
        status, output = run.poll(), run.output.read_text(errors="replace")
        self._check_processes(run)
        if status == 0:
            return True
        if not filled:
            self.fault(f"{name} ended with status {status}: {output[-600:]}")
        elif "Traceback" in output or "error: " not in output:
            self.fault(f"status {status} on a full disk, with other words than an error: {output[-1200:]}")
        self.check(name, ended=False)
        return False

    def _wait_for_the_others(self, run: Forked) -> None:
        for seconds in (PATIENCE, LAST):
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and self._alive(run):
                time.sleep(0.02)
            if self.processes > 1:
                for process in run.processes:
                    process.terminate()
        self._check_processes(run)
        run.kill()
        if self.disk:
            self.disk.free()
        output = run.output.read_text(errors="replace")
        if "Traceback" in output:
            self.fault(f"a traceback after a kill: {output[-1500:]}")

    def _alive(self, run: Forked) -> list[int]:
        running = {process.pid for process in run.processes if process.exitcode is None}
        return [*running.union(*(members_of(process.pid) for process in run.processes))]

    def _check_processes(self, run: Forked) -> None:
        if alive := self._alive(run):
            self.fault(f"{len(alive)} processes left")

    def complete(self, name: str) -> None:
        run = self.start(name)
        status = run.wait(LONGEST)
        if status:
            self.fault(f"{name} cannot be completed, status {status}: {run.output.read_text()[-1000:]}")
        else:
            self.finished(name)

    def finished(self, name: str) -> None:
        self.round += 1
        self.tally.completed += 1
        self.check(name, ended=True)


class Training(Scenario):
    """Training runs, resumed after each kill."""

    newest = 0

    def __init__(self, folder: Path, rng: random.Random, name: str) -> None:
        super().__init__(folder, rng)
        self.network = "HAT" if "HAT" in name else "DRCT"
        self.processes = 2 if "2 processes" in name else 1
        self.model = (ADVERSARIAL if "GAN" in name else DEGRADED) if "Real" in name else {}

    def arguments(self, name: str) -> list[str]:
        opt = train_options(SCALE, total_iter=ITERATIONS, warmup_iter=3)
        opt["name"] = name
        opt["train"]["scheduler"] = {"type": "CosineAnnealingLR", "T_max": ITERATIONS}
        shape = NETWORK if self.network == "DRCT" else HAT_TINY
        opt["network_g"] = network_options(shape | {"drop_path_rate": 0.3, "drop_rate": 0.1}, SCALE, self.network)
        opt["datasets"]["train"]["num_worker_per_gpu"] = self.rng.choice((0, 1, 2))
        opt["val"]["val_freq"] = 4
        opt["logger"] |= {"save_checkpoint_freq": 2, "save_best": "psnr", "keep_last": 3}
        if self.model:
            opt |= self.model
            opt["datasets"]["train"] |= {"type": "RealESRGANDataset", "crop_pad_size": 24, "blur_kernel_size": 7}
        if "network_d" in opt:
            opt["train"] |= {"gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}}
            opt["train"]["optim_d"] = dict(opt["train"]["optim_g"])
        file = write_options(self.folder.parent / f"{self.folder.name}.yml", opt)
        launcher = ["--launcher", "pytorch"] if self.processes > 1 else []
        return ["train", "-opt", file, "--auto_resume", *launcher]

    def check(self, name: str, ended: bool) -> None:
        root = Path("experiments", name)
        for path in [*root.glob("models/*.pth"), *root.glob("training_states/*.state")]:
            if not whole_zip(path):
                self.fault(f"{path.name} is not whole")
        steps = [int(path.stem) for path in root.glob("training_states/*.state")]
        newest = max(steps, default=0)
        if newest < self.newest:
            self.fault(f"checkpoint {self.newest} is lost, {newest} is the newest")
        self.newest = 0 if ended else newest
        if not ended:
            return
        files = ["models/net_g_latest.pth", "models/net_g_best.pth", f"training_states/{ITERATIONS}.state"]
        for file in files + ["models/net_d_latest.pth"] * ("network_d" in self.model):
            pair = [torch.load(Path("experiments", run, file), weights_only=True) for run in ("whole", name)]
            for content in pair:
                content.pop("options", None)  # the number of workers differs
            if not equal(*pair):
                self.fault(f"{file} differs from that of the undisturbed run")
        self._no_leftovers(root)
        shutil.rmtree(root)
        for later in Path("experiments").glob(f"{name}_*"):
            shutil.rmtree(later)

    def _no_leftovers(self, root: Path) -> None:
        if left := [str(path.relative_to(root)) for path in root.rglob(".*.tmp")]:
            self.fault(f"temporary files stay: {left}")


class Upscaling(Scenario):
    """A folder of pictures, upscaled with --skip-existing after each kill."""

    def arguments(self, name: str) -> list[str]:
        return ["upscale", "many", "-o", name, "--weights", "weights.pth", "--skip-existing", "--device", "cpu"]

    def check(self, name: str, ended: bool) -> None:
        results, whole = Path(name), Path("whole")
        done = [path for path in results.glob("*.png") if not path.name.startswith(".")]
        for path in done:
            if path.read_bytes() != (whole / path.name).read_bytes():
                self.fault("a picture is not whole")
        if ended:
            if len(done) != len(list(whole.glob("*.png"))):
                self.fault("pictures are missing")
            if left := [path.name for path in results.iterdir() if path.suffix == ".tmp"]:
                self.fault(f"temporary files stay: {left[:3]}")
            shutil.rmtree(results)


class Testing(Scenario):
    """A test run, repeated after each kill."""

    def arguments(self, name: str) -> list[str]:
        opt = test_options("weights.pth", SCALE)
        opt["name"] = name
        opt["network_g"] |= NETWORK
        opt["datasets"]["test_1"] |= {"dataroot_gt": "many_gt", "dataroot_lq": "many"}
        opt["val"] |= {"suffix": "x", "comparison": True}
        return ["test", "-opt", write_options(self.folder.parent / f"{self.folder.name}.yml", opt)]

    def check(self, name: str, ended: bool) -> None:
        results, whole = Path("results", name), Path("results", "whole")
        for path in results.rglob("*.png"):
            if path.parent != results and path.read_bytes() != (whole / path.relative_to(results)).read_bytes():
                self.fault("a picture is not whole")
        for path in [*results.rglob("*.json"), *results.rglob("*.csv")]:
            if not path.stat().st_size:
                self.fault(f"{path.name} is empty")
        if ended:
            files = [{path.name for path in run.rglob("*") if path.suffix != ".log"} for run in (results, whole)]
            if files[0] != files[1]:
                self.fault(f"other files than those of the undisturbed run: {sorted(files[0] ^ files[1])[:5]}")
            for folder in Path("results").glob(f"{name}*"):
                shutil.rmtree(folder)


def make_pictures() -> None:
    """Make pairs for training, more of them for upscaling and testing, and weights."""
    for folder, count in (("", 4), ("many", 12)):
        gt_folder, lr_folder = (Path("many_gt"), Path("many")) if folder else (Path("gt"), Path("lr"))
        gt_folder.mkdir()
        lr_folder.mkdir()
        for i in range(count):
            gt = photo(36 + 2 * (i % 3), 40, i)
            cv2.imwrite(str(gt_folder / f"{i}.png"), gt)
            cv2.imwrite(str(lr_folder / f"{i}.png"), reduce_image(gt, SCALE))
    torch.manual_seed(0)
    state = DRCT(**NETWORK, upscale=SCALE).state_dict()
    torch.save({"params": state, "params_ema": state}, "weights.pth")


def whole_zip(path: Path) -> bool:
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as file:
        return file.testzip() is None
    return False


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def scenario_of(name: str, folder: Path, rng: random.Random) -> Scenario:
    """Return the scenario of an entry of `SHARES`."""
    if name.startswith("train"):
        return Training(folder, rng, name)
    return (Upscaling if name.startswith("upscale") else Testing)(folder, rng)


def _absolute(path: str) -> Path:
    return Path(path).absolute()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=sum(SHARES.values()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SHARES, action="append", help="scenarios; default: all")
    parser.add_argument("--json", type=_absolute, help="put the counts into this file")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture_"))
    chosen = args.only or list(SHARES)
    counts: dict[str, Any] = {}
    try:
        for name in chosen:
            rng = random.Random(f"torture {args.seed} {name}")
            kills = max(1, round(args.kills * SHARES[name] / sum(SHARES[one] for one in chosen)))
            place = folder / name.replace(" ", "_")
            with SmallDisk(place) if "disk" in name else nullcontext() as disk:
                scenario = scenario_of(name, place, rng)
                scenario.disk = disk
                tally = scenario.run(kills)
                os.chdir(folder)
            counts[name] = {**vars(tally), **({"disk": disk.kind} if disk else {})}
            print(summary.torture_table({name: counts[name]}), flush=True)
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        summary.keep(args.json, "kills", counts)
    return int(any(entry["faults"] for entry in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
