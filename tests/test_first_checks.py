"""Mistakes that are told before PyTorch is imported, and what killed commands leave behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest
from conftest import photo, test_options, write_options

from drct import files
from drct.commands.report import main as report
from drct.data.lmdb_writer import write_lmdb
from drct.files import ABANDONED, UNFINISHED, remove_leftovers, write_atomically, write_text
from drct.images.bgr import write_png

MISTAKES = {
    "upscale nowhere.png": "error: nowhere.png: no such file",
    "upscale empty": "error: empty: the folder has no images",
    "upscale a.png --weights nowhere.pth": "error: no weights nowhere.pth",
    "upscale a.png --nonsense": "unrecognized arguments: --nonsense",
    "info nowhere.pth DRCT-XM": "error: no weights DRCT-XM (did you mean 'DRCT-XS_SRx4'?)",
    "info auto": "error: 'auto' chooses weights by the image, which upscale and serve do: name some",
    "test --weights auto --data empty": "error: 'auto' chooses weights by the image",
    "upscale a.png --network weights.yml": "error: --network is that of weights: name these by --weights",
    "export nowhere.pth -o x.onnx": "error: no weights nowhere.pth",
    "export DRCT-XS_SRx4 -o x.pth --metadata nowhere.yml": "error: cannot read metadata file nowhere.yml: No such file",
    "serve --network weights.yml": "error: --network is that of weights: name these by --weights",
    "serve --weights nowhere.pth": "error: no weights nowhere.pth",
    "prepare lr nowhere -o x": "error: no such folder: nowhere",
    "prepare lmdb nowhere -o x.lmdb": "error: no such folder: nowhere",
    "prepare meta-info nowhere -o x.txt": "error: no such folder: nowhere",
    "analyze lam nowhere.pth --input a.png -o x": "error: no weights nowhere.pth",
    "analyze lam DRCT-XS_SRx4 --input nowhere.png -o x": "error: cannot read image nowhere.png: no such file",
    "analyze features DRCT-XS_SRx4 --input nowhere.png -o x": "error: no such file: nowhere.png",
    "report nowhere": "nowhere",
    "verify nowhere.json": "error: cannot read certificate nowhere.json: No such file or directory",
    "verify nowhere.json --tolerance low": "low is not a number from 0, such as 0.01 or ssim=0.0001",
    "curves nowhere": "nowhere",
    "test -opt nowhere.yml": "error: cannot read option file nowhere.yml: No such file or directory",
    "train -opt nowhere.yml": "error: cannot read option file nowhere.yml: No such file or directory",
    "test -opt images.yml": "error: images.yml: datasets.test_1.dataroot_gt: no such folder: missing. Put the images",
    "test -opt weights.yml": "error: weights.yml: path.pretrain_network_g: no such file: missing.pth. Put the weight",
    "test -opt images.yml --nonsense": "unrecognized arguments: --nonsense",
    "train": "the following arguments are required: -opt",
    "test": "error: give either an option file, -opt FILE, or --weights NAME and --data FOLDER",
    "test -opt images.yml --weights DRCT-XS_SRx4": "datasets.test_1.dataroot_gt: no such folder",
    "test -opt here.yml --weights DRCT-XS_SRx4": "error: give either an option file, -opt FILE, or --weights NAME",
    "test -opt here.yml --data empty": "error: --data goes with --weights: with -opt, --force_yml replaces options",
    "test -opt here.yml --self-ensemble": "error: --self-ensemble goes with --weights: with -opt, --force_yml",
    "test --weights DRCT-XS_SRx4": "error: --weights needs --data FOLDER, high-resolution images",
    "test --weights DRCT-XM --data empty": "error: no weights DRCT-XM (did you mean 'DRCT-XS_SRx4'?)",
    "test --weights DRCT-XS_SRx4 --data nowhere": "error: no such folder: nowhere",
    "test --weights DRCT-XS_SRx4 --data empty --lr nowhere": "error: no such folder: nowhere",
    "test -opt short.yml": "error: short.yml: path.pretrain_network_g: no weights missing.pth. Give a path, the name",
}
RUN_ALL = """
import contextlib, io, json, sys
from drct.cli import main
found = {}
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
        try:
            status = main(command.split())
        except SystemExit as error:
            status = error.code
    found[command] = [status, said.getvalue(), sorted({"torch", "basicsr"} & sys.modules.keys())]
print(json.dumps(found))
"""


def run_commands(commands):
    """Run commands of `drct` in one new process. Returns status, words and slow modules imported so far, of each."""
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    command = [sys.executable, "-c", RUN_ALL, json.dumps(list(commands))]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def test_mistakes_in_paths_and_arguments_are_told_before_pytorch_is_imported(workplace):
    pytest.importorskip("matplotlib")
    Path("empty").mkdir()
    write_png("a.png", photo(8, 8))
    options = test_options("missing.pth")
    write_options(Path("images.yml"), options | {"datasets": {"test_1": options["datasets"]["test_1"]}})
    text = Path("images.yml").read_text()
    Path("images.yml").write_text(text.replace("dataroot_gt: gt", "dataroot_gt: missing"))
    Path("weights.yml").write_text(text.replace(": gt", ": empty").replace(": lr", ": empty"))
    Path("here.yml").write_text("name: a\n")
    Path("short.yml").write_text("path: {pretrain_network_g: missing.pth}\n")
    found = run_commands(MISTAKES)
    for command, words in MISTAKES.items():
        status, said, modules = found[command]
        assert status == 2, (command, said)
        assert words in said, (command, said)
        assert not modules, command
    assert sorted(path.name for path in Path().iterdir()) == [
        *("a.png", "empty", "here.yml", "images.yml", "short.yml", "weights.yml")
    ]


def test_help_does_not_import_pytorch():
    commands = ["upscale", "serve", "info", "zoo", "export", "test", "verify", "train", "prepare", "curves", "report"]
    commands += ["complexity", "analyze features", "analyze lam"]
    commands = [f"{command} --help" for command in commands]
    for command, (status, said, modules) in run_commands(commands).items():
        assert status == 0 and "usage:" in said, command
        assert not modules, command


def test_paths_that_are_changed_are_not_checked_too_early(workplace, capfd):
    from drct.commands.run_arguments import read_arguments
    from drct.errors import DRCTError

    file = write_options(Path("test.yml"), test_options("missing.pth"))
    with pytest.raises(DRCTError, match="no such folder: gt"):
        read_arguments(["-opt", file])
    changes = ["datasets:test_1:dataroot_gt=.", "datasets.test_1.dataroot_lq=.", "path:pretrain_network_g=test.yml"]
    assert read_arguments(["-opt", file, "--force_yml", *changes]).force_yml == changes


# ------------------------------------------------------------------------------------------------- what a kill leaves


def leave(folder, name="a.png", age=0.0, inside=""):
    """Leave an unfinished file, or a folder of one, as a killed process does."""
    path = Path(folder, f".{name}.x{UNFINISHED}")
    file = path / inside if inside else path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("half")
    for each in (file, path):
        os.utime(each, (time.time() - age,) * 2)
    return path


def test_what_is_being_written_has_a_name_that_is_ignored(workplace, monkeypatch):
    seen = []
    monkeypatch.setattr(files.os, "replace", lambda source, target: seen.append(Path(source).name))
    write_text("a.txt", "x")
    assert seen[0].startswith(".a.txt.") and seen[0].endswith(UNFINISHED)
    ignored = (Path(__file__).parents[1] / ".gitignore").read_text().splitlines()
    assert ".*.tmp" in ignored and UNFINISHED.endswith(".tmp") and "/upscaled/" in ignored


def test_leftovers_are_removed_unless_somebody_writes_them(workplace):
    old, new = leave("out", "a.png", 5), leave("out", "b.png")
    below, folder = leave("out/sub", "c.png", 5), leave("out", "d.lmdb", ABANDONED + 60, "data.mdb")
    young = leave("out", "e.lmdb", 60, "data.mdb")  # folders have no locks
    mine = Path("out/.mine.tmp")
    mine.write_text("of another program")
    os.utime(mine, (0, 0))
    every = (old, new, below, folder, young, mine)

    def write(file: BinaryIO) -> None:
        written = Path(file.name) if isinstance(file.name, str) else next(Path("out").glob(f".f.txt.*{UNFINISHED}"))
        os.utime(written, (0, 0))
        remove_leftovers("out", shared=True)
        assert written.exists()
        file.write(b"x")

    write_atomically("out/f.txt", write)
    assert Path("out/f.txt").read_bytes() == b"x"
    assert [path.exists() for path in every] == [False, True, True, False, True, True]
    remove_leftovers("out", recursive=True)
    assert [path.exists() for path in every] == [False, False, False, False, False, True]
    remove_leftovers("nowhere")


def test_a_new_lmdb_removes_what_a_killed_process_left_of_it(workplace):
    left = leave(".", "gt.lmdb", ABANDONED + 60, "data.mdb")
    write_png("gt/a.png", photo(8, 8))
    write_lmdb(Path("gt.lmdb"), {Path("gt/a.png"): "a.png"}, {Path("gt/a.png"): (8, 8)})
    assert Path("gt.lmdb/data.mdb").exists() and not left.exists()


# -------------------------------------------------------------------------------------------------- the same run twice


def test_a_folder_that_is_given_twice_is_told(workplace, capsys):
    assert report(["results/a", "results/b", "results/a/"]) == 2  # there are none
    assert capsys.readouterr().err.replace("\\", "/").startswith("note: results/a is given twice and counts once\n")


def test_names_that_stdout_cannot_express_are_printed_as_escapes(workplace):
    write_png("a.png", photo(4, 5))
    code = "import sys; sys.argv = ['drct', 'upscale', 'a.png', '-o', 'gr\\xf6\\xdfer']; import drct.cli; "
    code += "drct.cli.entry_point()"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("1 image upscaled into gr\\xf6\\xdfer, ")
