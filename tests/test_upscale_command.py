"""`drct upscale`: what goes where, what is refused, and odd files by the dozen."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, pair, photo
from picture_corpus import make_corpus
from PIL import Image

import drct
from drct.cli import COMMANDS
from drct.cli import main as drct_main
from drct.commands.analyze import ANALYSES
from drct.images.pictures import WRITABLE, read_picture
from drct.inference import batch

TINIEST = TINY | {"depths": (1,), "num_heads": (2,)}


@pytest.fixture
def tiny(workplace):
    """Run the command with a tiny x2 network in fp32; the status."""
    torch.save(pair(2, **TINIEST)[1].state_dict(), workplace / "tiny.pth")

    def run(*arguments):
        return drct_main(
            ["upscale", *map(str, arguments), "--weights", "tiny.pth", "--precision", "fp32", "--device", "cpu"]
        )

    return run


def save(path, seed=0, size=(9, 14)):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(*size, seed)).save(path)


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------------------ names, folders


def test_a_file_goes_to_a_folder_or_a_file(tiny, workplace, capfd):
    save("photo.jpg")
    assert tiny("photo.jpg") == 0
    assert files_below("upscaled") == ["photo.jpg"]
    assert "1 image upscaled into upscaled" in capfd.readouterr().out
    assert tiny("photo.jpg", "-o", "deep/larger.png") == 0
    result, input_ = np.asarray(Image.open("deep/larger.png")), np.asarray(Image.open("photo.jpg"))
    assert np.array_equal(result, drct.load("tiny.pth", "cpu", "fp32").upscale(input_))
    assert Image.open("upscaled/photo.jpg").size == (28, 18)


def test_folders_keep_their_tree(tiny, workplace):
    for i, name in enumerate(("a.png", "below/a.png", "below/deeper/b.webp", "c.txt", ".hidden/d.png", "e.GIF")):
        save(f"in/{name}.png" if name.endswith("txt") else f"in/{name}", i)
    Path("in/c.txt.png").rename("in/c.txt")
    expected = ["a.png", "below/a.png", "below/deeper/b.webp", "e.png"]
    assert tiny("in", "-o", "out") == 0
    assert files_below("out") == expected
    save("more/in/a.png")
    assert tiny("in", "more/in", "-o", "both", "--suffix", "_x2", "--format", "png") == 1  # both are called in
    assert len(files_below("both")) == 4
    assert tiny("in", "more", "-o", "two") == 0
    assert files_below("two") == sorted([f"in/{name}" for name in expected] + ["more/in/a.png"])


def test_one_line_tells_which_weights_were_taken(workplace, capfd):
    save("in/a.png")
    Image.fromarray(photo(9, 14)).save("in/b.jpg", quality=50)
    Image.fromarray(photo(9, 14)).save("in/c.jpg", quality=60)
    assert drct_main(["upscale", "in", "--device", "cpu"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("weights: 2 images by Real-DRCT-XS_SRx4, for compressed photographs (WebP, AVIF, JPEG")
    assert "; 1 image by DRCT-XS_SRx4, for clean images (lossless, or JPEG of quality 92 or above)." in lines[0]
    assert drct_main(["upscale", "in", "-o", "one", "--weights", "DRCT-XS_SRx4", "--device", "cpu"]) == 0
    assert "weights" not in capfd.readouterr().out


def test_patterns_suffixes_and_formats(tiny, workplace):
    for name in ("scans/1.png", "scans/2.png", "scans/3.jpg"):
        save(name)
    assert tiny("scans/*.png", "-o", "out", "--suffix", "_x4", "--format", "webp") == 0
    assert files_below("out") == ["1_x4.webp", "2_x4.webp"]
    assert Image.open("out/1_x4.webp").format == "WEBP"


def test_results_below_the_input_folder_are_no_inputs(tiny, workplace):
    save("in/a.png")
    for _ in range(2):
        assert tiny("in", "-o", "in/out", "--overwrite") == 0
        assert files_below("in") == ["a.png", "out/a.png"]


def test_nothing_is_overwritten_unasked(tiny, workplace, capfd):
    save("in/a.png")
    save("in/b.png", 1)
    before = {name: Path("in", name).read_bytes() for name in ("a.png", "b.png")}
    assert tiny("in", "-o", "in") == 2
    assert "would overwrite the input" in capfd.readouterr().err
    assert tiny("in/a.png", "-o", "in/b.png") == 1
    assert "in/b.png exists: --overwrite replaces it" in capfd.readouterr().err
    assert {name: Path("in", name).read_bytes() for name in before} == before
    assert tiny("in", "-o", "in", "--suffix", "_x2") == 0
    assert tiny("in/a.png", "in/b.png", "-o", "out") == 0
    first = Path("out/a.png").read_bytes()
    Path("out/a.png").write_bytes(b"mine")
    Path("out/b.png").unlink()
    assert tiny("in/a.png", "in/b.png", "-o", "out", "--skip-existing") == 0
    assert re.search(r"1 image upscaled into out, .*, 1 existed already", capfd.readouterr().out)
    assert Path("out/a.png").read_bytes() == b"mine"
    assert tiny("in/a.png", "-o", "out", "--overwrite") == 0
    assert Path("out/a.png").read_bytes() == first


def test_a_result_that_another_program_makes_meanwhile_is_not_replaced(tiny, workplace, capfd, monkeypatch):
    save("a.png")
    whole = drct.Upscaler.upscale_picture

    def slow(self, *arguments):
        Path("out/a.png").write_bytes(b"theirs")
        return whole(self, *arguments)

    monkeypatch.setattr(drct.Upscaler, "upscale_picture", slow)
    assert tiny("a.png", "-o", "out") == 1
    assert "error: a.png: out/a.png exists: --overwrite replaces it, --skip" in capfd.readouterr().err
    Path("out/a.png").unlink()
    assert tiny("a.png", "-o", "out", "--skip-existing") == 0
    assert "0 images upscaled into out, 1 existed already" in capfd.readouterr().out
    assert Path("out/a.png").read_bytes() == b"theirs"
    assert tiny("a.png", "-o", "out", "--overwrite") == 0
    assert Image.open("out/a.png").size == (28, 18)
    assert files_below("out") == ["a.png"]


def test_results_beside_their_inputs_are_no_inputs_of_the_next_run(tiny, workplace, capfd):
    save("in/a.png")
    for more in ((), ("--skip-existing",)):
        assert tiny("in", "-o", "in", "--suffix", "_x2", *more) == 0
        assert files_below("in") == ["a.png", "a_x2.png"]


def test_names_with_a_tilde_and_long_names(tiny, workplace):
    long = "n" * 245 + ".png"
    for name in ("~backup.png", long):
        save(name)
    assert tiny("~backup.png", long, "-o", "out") == 0
    assert files_below("out") == sorted([long, "~backup.png"])


def test_what_a_format_cannot_hold_is_told_before_it_is_computed(tiny, workplace, capfd, monkeypatch):
    save("wide.png", size=(2, 9000))
    monkeypatch.setattr(drct.Upscaler, "run", None)
    assert tiny("wide.png", "-o", "out", "--format", "webp") == 1
    assert "WEBP has at most 16383 a side" in capfd.readouterr().err


def test_two_inputs_of_one_name_do_not_become_one(tiny, workplace, capfd):
    save("a/x.png")
    save("b/x.png", 1)
    assert tiny("a/x.png", "b/x.png", "a/x.png", "-o", "out") == 1
    assert re.search(r"error: b/x.png: its result would be out/x.png, as that of a/x.png", capfd.readouterr().err)
    assert files_below("out") == ["x.png"]


def test_mistakes_are_one_line_each(tiny, workplace, capfd, monkeypatch):
    save("a.png")
    save("b.png")
    (workplace / "empty").mkdir()
    (workplace / "only/folders").mkdir(parents=True)
    monkeypatch.setattr(drct.Upscaler, "run", None)  # nothing is computed in vain
    cases = {
        ("nothing.png",): "error: nothing.png: no such file",
        ("*.tif",): "error: *.tif: no such file",
        ("empty",): "error: empty: the folder has no images",
        ("only/*",): "error: only/*: no such file",
        ("",): "error: an input without a name",
        ("a.png", "b.png", "-o", "tiny.pth"): "error: -o tiny.pth is a file",
        ("a.png", "b.png", "-o", "c.png"): "error: -o c.png is a file",
        ("a.png", "-o", "c.gif"): "error: cannot write c.gif: its name must end in",
        ("a.png", "-o", "c.png", "--format", "jpg"): "error: -o c.png says the result's name already",
        ("a.png", "-o", "c.png", "--suffix", "_x2"): "error: -o c.png says the result's name already",
        ("a.png", "-o", "a.png/out"): "error: cannot write a.png/out",
    }
    for arguments, message in cases.items():
        assert tiny(*arguments) == 2
        lines = capfd.readouterr().err.splitlines()
        assert [line for line in lines if line.startswith("error")] == [lines[0]]
        assert message in lines[0]
    assert drct_main(["upscale", "a.png", "--weights", "nothing"]) == 2
    assert "error: no weights nothing" in capfd.readouterr().err
    for wrong in (
        ["--outscale", "0"],
        ["--tile", "-3"],
        ["--format", "gif"],
        ["--skip-existing", "--overwrite"],
        ["--quality", "0"],
    ):
        with pytest.raises(SystemExit):
            tiny("a.png", *wrong)
    assert drct_main(["upscael"]) == 2
    assert "did you mean 'upscale'?" in capfd.readouterr().err


def test_options_reach_the_upscaler(tiny, workplace):
    save("a.png")
    image = np.asarray(Image.open("a.png"))
    plain = drct.load("tiny.pth", "cpu", "fp32")
    assert tiny("a.png", "-o", "o.png", "--outscale", "1.5") == 0
    assert np.array_equal(np.asarray(Image.open("o.png")), plain.upscale(image, outscale=1.5))
    assert tiny("a.png", "-o", "e.png", "--self-ensemble") == 0
    ensemble = drct.load("tiny.pth", "cpu", "fp32", self_ensemble=True)
    assert np.array_equal(np.asarray(Image.open("e.png")), ensemble.upscale(image))
    assert tiny("a.png", "-o", "t.png", "--tile", "4") == 0
    assert np.array_equal(np.asarray(Image.open("t.png")), drct.load("tiny.pth", "cpu", "fp32", tile=4).upscale(image))


def test_running_out_of_memory_is_explained_and_loses_no_neighbour(tiny, workplace, capfd, monkeypatch):
    save("a.png")
    save("b.png", size=(9, 20))
    whole = drct.Upscaler.upscale_picture

    def failing(self, picture, *arguments):
        if picture.pixels.shape[1] == 14:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return whole(self, picture, *arguments)

    monkeypatch.setattr(drct.Upscaler, "upscale_picture", failing)
    assert tiny("a.png", "b.png", "-o", "out") == 1
    assert "error: a.png: out of memory: try --tile 256, or less" in capfd.readouterr().err
    assert files_below("out") == ["b.png"]


def test_ctrl_c_leaves_whole_files_and_says_how_to_go_on(tiny, workplace, capfd, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        save(f"in/{name}")
    whole = batch._upscale_file

    def interrupted(job, *arguments):
        if job.source.name == "b.png":
            raise KeyboardInterrupt
        return whole(job, *arguments)

    monkeypatch.setattr(batch, "_upscale_file", interrupted)
    assert tiny("in", "-o", "out") == 130
    assert "interrupted after 1 of 3 images; --skip-existing goes on" in capfd.readouterr().err
    assert files_below("out") == ["a.png"]


# -------------------------------------------------------------------------------------------------- odd files, sharing


def test_odd_files_give_the_right_picture_or_one_line_and_lose_no_neighbour(tiny, workplace, capfd):
    cases = make_corpus(workplace / "in")
    assert len(cases) >= 60
    assert tiny(*(case.path for case in cases), "-o", "out", "--suffix", "_x2") == 1
    err = capfd.readouterr().err
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    upscaler = drct.load("tiny.pth", "cpu", "fp32")
    results = 0
    for case in cases:
        shown = " ".join(str(case.path).encode(errors="backslashreplace").decode().splitlines())
        mine = [line for line in errors if re.match(rf"error: (cannot read image )?{re.escape(shown)}: ", line)]
        if mine and "its result would be" in mine[0]:  # that of another suffix has the same name
            continue
        if case.pixels is None:
            assert len(mine) == 1, (case, mine)
            assert case.path.is_dir() or case.error.lower() in mine[0].lower()
        else:
            assert not mine
            suffix = case.path.suffix if case.path.suffix.lower() in WRITABLE else ".png"
            path = Path("out", f"{case.path.stem}_x2{suffix}")
            expected = upscaler.upscale_pixels(read_picture(case.path).pixels)
            result = read_picture(path).pixels
            assert result.shape[:2] == expected.shape[:2] == tuple(2 * side for side in case.pixels.shape[:2]), case
            if path.suffix in (".png", ".tif", ".tiff") and result.dtype == expected.dtype:
                assert np.array_equal(result, expected), case
            results += 1
    assert len(files_below("out")) == results >= 40


def test_several_processes_do_each_file_once(workplace):
    torch.save(pair(2, **TINY)[1].state_dict(), "tiny.pth")
    for i in range(7):
        save(f"in/{i}.png", i)
    Path("in/broken.png").write_bytes(b"no picture")
    arguments = ["upscale", "in", "-o", "out", "--weights", "tiny.pth", "--precision", "fp32"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*launch, "-m", "drct", *arguments], env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode != 0
    summaries = re.findall(r"^7 images upscaled into out, 0\.00 megapixels in [\d.]+ s, 1 failed$", run.stdout, re.M)
    assert len(summaries) == 1
    assert run.stderr.count("error: cannot read image in/broken.png") == 1
    assert files_below("out") == [f"{i}.png" for i in range(7)]
    assert drct_main([*arguments[:3], "alone", *arguments[4:]]) == 1
    for i in range(7):
        assert Path("out", f"{i}.png").read_bytes() == Path("alone", f"{i}.png").read_bytes()


def test_results_are_those_of_test_py_bit_for_bit(workplace):
    for folder in ("datasets", "experiments", "options"):
        Path(folder).symlink_to(ROOT / folder)
    options = ["-opt", "options/test/DRCT-XS_SRx4_demo.yml", "--force_yml", "val:comparison=false", "val:bicubic=false"]
    assert drct_main(["test", *options]) == 0
    assert drct_main(["upscale", "datasets/demo/LRbicx4", "-o", "out", "--precision", "fp32"]) == 0
    names = files_below("out")
    assert len(names) == 5
    for name in names:
        stem = Path(name).stem
        expected = Image.open(f"results/DRCT-XS_SRx4_demo/visualization/demo/{stem}_DRCT-XS_SRx4_demo.png")
        assert np.array_equal(np.asarray(Image.open(Path("out", name))), np.asarray(expected)), name


# ------------------------------------------------------------------------------------------------------------ the help


def test_help_comes_without_heavy_imports():
    code = """
import contextlib, sys, drct.cli
for command in ([], ["upscale"], ["serve"], ["info"], ["export"], ["prepare"], ["complexity"]):
    with contextlib.suppress(SystemExit):
        drct.cli.main([*command, "--help"])
    loaded = {"torch", "numpy", "cv2", "basicsr"} & sys.modules.keys()
    assert not loaded, (command, loaded)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert all(f"  {name} " in run.stdout for name in COMMANDS)
    version = subprocess.run([sys.executable, "-m", "drct", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert version.stdout == f"drct {drct.__version__}\n"


@pytest.mark.parametrize("name", [*sorted(set(COMMANDS) - {"analyze"}), *(f"analyze {name}" for name in ANALYSES)])
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        drct_main([*name.split(), "--help"])
    assert end.value.code == 0
    assert f"usage: drct {name} " in capsys.readouterr().out


def test_a_command_of_several_lists_them(capsys):
    assert drct_main(["analyze", "--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in ANALYSES)
    assert drct_main(["analyze", "feature"]) == 2
    assert (
        "there is no command 'feature' (did you mean 'features'?); see drct analyze --help" in capsys.readouterr().err
    )
