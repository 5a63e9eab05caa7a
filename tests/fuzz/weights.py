"""Mutated weight and state files, through the commands that read them."""

import json
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import cv2
import safetensors.torch
import torch
from conftest import photo, test_options, train_options, write_options

from drct.archs.drct_arch import DRCT
from drct.archs.variants import drct_options
from drct.data.prepare import reduce_image
from fuzz import memory
from fuzz.picture_mutations import ANY
from fuzz.pool import AS_USERS_DO, apart
from fuzz.verdicts import DONE, Ended, Verdict, judge, run_as_users_do, run_here
from fuzz.weight_mutations import CONTAINERS, mutate_metadata, mutate_state, mutate_weights

FULL = 600
SCALE = 2
NETWORK: dict[str, Any] = {
    "embed_dim": 12,
    "gc": 4,
    "depths": (2,),
    "num_heads": (2,),
    "window_size": 4,
    "img_size": 16,
}
MOST_MEMORY = 256 << 20  # bytes that a command may take with this network, whose file has 100 kB
KINDS = ("bytes", "bytes", "weights", "weights", "weights", "metadata", "state", "state")


class WeightFiles:
    """Files of a tiny network in all layouts, and a training run of it that has stopped after two of four steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "weights"
        for kind in ("gt", "lr"):
            (self.folder / kind).mkdir(parents=True)
        gt = photo(40, 48)
        cv2.imwrite(str(self.folder / "gt" / "0.png"), gt)
        cv2.imwrite(str(self.folder / "lr" / "0.png"), reduce_image(gt, SCALE))
        torch.manual_seed(0)
        network = DRCT(**NETWORK, upscale=SCALE)
        self.state = network.state_dict()
        self.config = dict(drct_options(self.state))
        self.metadata = {"drct_config": json.dumps(self.config)}
        self.files = self._write_files()
        self._train()
        self.reference = self._reference()

    def _write_files(self) -> list[Path]:
        files = {name: self.folder / name for name in ("zip.pth", "legacy.pth", "bare.pth", "metadata.pth", "half.pth")}
        torch.save({"params": self.state, "params_ema": self.state}, files["zip.pth"])
        torch.save({"params": self.state}, files["legacy.pth"], _use_new_zipfile_serialization=False)
        torch.save(self.state, files["bare.pth"])
        torch.save({"params": self.state, "metadata": self.metadata}, files["metadata.pth"])
        half = {name: value.half() if value.is_floating_point() else value for name, value in self.state.items()}
        torch.save({"params": half}, files["half.pth"])
        tensors = {name: value.clone() for name, value in self.state.items()}
        safetensors.torch.save_file(tensors, self.folder / "file.safetensors", self.metadata)
        return [*files.values(), self.folder / "file.safetensors"]

    def _options(self, total: int, weights: str | None = None) -> str:
        train = train_options(SCALE, total_iter=total)
        train["path"]["pretrain_network_g"] = weights
        test = test_options(weights or "zip.pth", SCALE)
        for options in (train, test):
            options["network_g"] |= {key: list(v) if isinstance(v, tuple) else v for key, v in NETWORK.items()}
        write_options(Path("test.yml"), test)
        return write_options(Path("train.yml"), train)

    def _train(self) -> None:
        apart(self.folder, lambda: run_here("train", "-opt", self._options(2)))

    def _reference(self) -> bytes:
        """Upscale the image by the weights as they are."""
        line = ["upscale", "lr/0.png", "-o", "reference.png", "--weights", "bare.pth", "--device", "cpu"]
        apart(self.folder, lambda: run_here(*line))
        return (self.folder / "reference.png").read_bytes()

    def run(self, number: int, seed: int) -> Verdict:
        """Run a mutated file in the current folder."""
        rng = random.Random(f"weights {seed} {number}")
        for kind in ("gt", "lr"):
            Path(kind).symlink_to(self.folder / kind)
        kind = rng.choice(KINDS)
        if kind == "state" or (kind == "bytes" and rng.random() < 0.2):
            file, what, command = self._mutant_run(kind, rng)
        else:
            file, what = self._mutant_file(kind, rng)
            command = self._command(file, rng)
        what = f"drct {' '.join(map(str, command))[:60]}: {what}"
        Path("what.txt").write_text(what, errors="replace")
        run = run_as_users_do if number % AS_USERS_DO == 0 else run_here
        ended = run(*command)
        verdict = judge(ended)
        if verdict.good:
            verdict = self._fault(ended, file, what, command[0], verdict) or verdict
        verdict.what = what
        return verdict

    def _mutant_file(self, kind: str, rng: random.Random) -> tuple[Path, str]:
        source = rng.choice(self.files)
        file = Path(f"mutant{source.suffix}")
        if kind == "bytes":
            data, what = rng.choice(ANY)(source.read_bytes(), rng)
            file.write_bytes(data)
            return file, f"{source.name}, {what}"
        if kind == "metadata":
            text, what = mutate_metadata(self.config, rng)
            if file.suffix == ".safetensors":
                safetensors.torch.save_file({k: v.clone() for k, v in self.state.items()}, file, {"drct_config": text})
            else:
                torch.save({"params": self.state, "metadata": {"drct_config": text}}, file)
            return file, what
        file = Path("mutant.pth")
        content, what = mutate_weights(self.state, rng)
        torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.8)
        return file, what

    def _command(self, file: Path, rng: random.Random) -> list[Any]:
        name = rng.choice(("info", "upscale", "upscale", "test", "train", "export"))
        if name == "info":
            return ["info", file, *rng.choice(([], ["--json"]))]
        if name == "upscale":
            return ["upscale", "lr/0.png", "-o", "result.png", "--weights", file, "--device", "cpu"]
        if name == "export":
            return ["export", file, "-o", rng.choice(("result.pth", "result.safetensors"))]
        self._options(4, str(file))
        return [name, "-opt", f"{name}.yml"]

    def _mutant_run(self, kind: str, rng: random.Random) -> tuple[Path, str, list[Any]]:
        shutil.copytree(self.folder / "experiments", "experiments")
        run = Path("experiments", "run")
        file = run / "training_states" / "2.state"
        if kind == "state":
            content, what = mutate_state(torch.load(file, weights_only=True), rng)
            torch.save(content, file)
        else:
            file = rng.choice((file, run / "models" / "net_g_2.pth"))
            data, what = rng.choice(ANY)(file.read_bytes(), rng)
            file.write_bytes(data)
        command = ["train", "-opt", self._options(4), "--auto_resume"]
        return file, f"{file.name}, {what}", command

    def _fault(self, ended: Ended, file: Path, what: str, command: str, verdict: Verdict) -> Verdict | None:
        if memory.taken() > MOST_MEMORY:
            return Verdict("memory", "for a small network", f"{memory.taken() >> 20} MB")
        results = [path for path in Path().glob("result*") if path.is_file()]
        if verdict.kind != DONE:
            return Verdict("wrong", "a result, though refused", str(results)) if results else None
        if file.suffix != ".state" and not_finite(file):
            return Verdict("wrong", f"weights that are not finite go through {command}", ended.err[-500:])
        if zipfile.is_zipfile(file) and _damaged(file):
            return Verdict("wrong", "a file of wrong checksums without a word", ended.err[-500:])
        if command == "upscale" and what.split(": ", 1)[1] in CONTAINERS and results[0].read_bytes() != self.reference:
            return Verdict("wrong", "another picture from the same weights", "")
        if command == "train":
            if "Trained 4 iterations" not in ended.err + ended.out:
                return Verdict("wrong", "not the iterations asked for", ended.err[-1000:])
            if not_finite(Path("experiments/run/models/net_g_latest.pth")):
                return Verdict("wrong", "trained weights are not finite", ended.err[-1000:])
        return None


def not_finite(file: Path) -> bool:
    """Return whether a tensor in a file is not finite; of several entries, whether one is not in each."""
    if file.suffix == ".safetensors":
        content: Any = safetensors.torch.load_file(file)
    else:
        content = torch.load(file, weights_only=True)
    return _not_finite(content)


def _not_finite(content: Any) -> bool:
    if isinstance(content, dict):
        return any(_not_finite(value) for value in content.values())
    if isinstance(content, list | tuple):
        return any(_not_finite(value) for value in content)
    if not isinstance(content, torch.Tensor) or not content.is_floating_point() or content.device.type == "meta":
        return False
    return bool(content.numel() < 10**7 and not content.to_dense().float().isfinite().all())


def _damaged(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is not None
    except Exception:  # noqa: BLE001 - zipfile raises errors of any type for broken files
        return True
