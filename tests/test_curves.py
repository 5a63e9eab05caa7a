"""Drawing the curves of training runs."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from drct.analysis import curves
from drct.analysis.curves import best_point, draw_training_curves, select_tags, smooth
from drct.commands.curves import main
from drct.errors import DRCTError
from drct.runs.folders import run_names
from drct.runs.scalars import read_scalars

ROWS = [
    "100,losses/l_pix,0.5",
    "100,train/lr,1e-4",
    "200,losses/l_pix,0.25",
    "200,train/lr,5e-05",
    "200,metrics/Set5/psnr,30.5",
    "200,metrics/Set5/ssim,0.85",
]


def write_run(folder, rows=ROWS, end="\n"):
    path = Path(folder, "scalars.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(["iteration,tag,value", *rows]).encode() + end.encode())
    return path.parent


def series(*values, step=100):
    return np.arange(1, len(values) + 1) * step, np.array(values, np.float64)


def lines(axes, kind):
    return [line for line in axes.lines if line.get_gid() == kind]


def points(line):
    return np.column_stack([line.get_xdata(), line.get_ydata()]).tolist()


# ------------------------------------------------------------------------------------------------------------ reading


def test_scalars_of_a_folder_or_file_per_tag(workplace):
    run = write_run("run")
    for path in (run, run / "scalars.csv", str(run)):
        scalars = read_scalars(path)
        assert list(scalars) == ["losses/l_pix", "train/lr", "metrics/Set5/psnr", "metrics/Set5/ssim"]
        iterations, values = scalars["losses/l_pix"]
        assert (iterations.dtype, values.dtype) == (np.int64, np.float64)
        assert (iterations.tolist(), values.tolist()) == ([100, 200], [0.5, 0.25])
        assert scalars["train/lr"][1].tolist() == [1e-4, 5e-5]


@pytest.mark.parametrize("cut", ["3", "300", "300,", "300,losses/l_p", "300,losses/l_pix,", "300,losses/l_pix,0.1"])
def test_a_line_cut_by_a_crash_is_ignored(workplace, cut):
    """Also where what is left of it looks whole: 0.1 may have been 0.125."""
    scalars = read_scalars(write_run("run", [*ROWS, cut], end=""))
    assert scalars["losses/l_pix"][0].tolist() == [100, 200]
    assert len(scalars) == 4


def test_a_resumed_run(workplace):
    """The cut line is in the middle, the power failure left zeros, and iterations since the state come again."""
    rows = [
        *ROWS,
        "300,losses/l_pix,0.2",
        "400,losses/l_p\0\0300,losses/l_pix,0.9",
        "300,losses/l_pix,0.21",
        "x",
        "",
        "4\r4,a,1",
    ]
    scalars = read_scalars(write_run("run", rows))
    assert scalars["losses/l_pix"][0].tolist() == [100, 200, 300]
    assert scalars["losses/l_pix"][1].tolist() == [0.5, 0.25, 0.21]
    assert len(scalars) == 4


def test_line_ends_of_windows_and_values_that_are_not_finite(workplace):
    run = write_run("run", ["100,a,nan", "200,a,inf", "300,a,-1.5"])
    path = run / "scalars.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    iterations, values = read_scalars(run)["a"]
    assert iterations.tolist() == [100, 200, 300]
    assert np.array_equal(values, [np.nan, np.inf, -1.5], equal_nan=True)


@pytest.mark.parametrize("text", ["", "iterat", "iteration,tag,value\n"])
def test_a_run_that_has_only_begun_has_no_values(workplace, text):
    Path("scalars.csv").write_text(text)
    assert read_scalars(".") == {}


# ------------------------------------------------------------------------------------------------------- names, choice


def test_names_of_runs(workplace):
    paths = ["new/a", "old/a/scalars.csv", "new/b", "./new/b/", "x/deep/c", "y/deep/c", "saved/d_x2.5.csv"]
    names = run_names(paths)
    assert list(names) == ["new/a", "old/a", "b", "x/deep/c", "y/deep/c", "d_x2.5"]
    assert [str(path) for path in names.values()] == [str(Path(path)) for path in (*paths[:3], *paths[4:])]
    assert list(run_names(["."])) == [workplace.name]


def test_choice_of_tags(workplace):
    gan = {"losses/l_g_gan": series(1), "metrics/Set5/lpips": series(1), "train/iter_time": series(1)}
    runs = {"a": read_scalars(write_run("a")), "b": gan}
    metrics = ["metrics/Set5/psnr", "metrics/Set5/ssim", "metrics/Set5/lpips"]
    assert select_tags(runs) == ["losses/l_pix", "losses/l_g_gan", *metrics, "train/lr"]
    assert select_tags({"b": gan}) == ["losses/l_g_gan", "metrics/Set5/lpips"]
    assert select_tags(runs, ["train/*", "*/psnr", "train/lr"]) == ["train/lr", "train/iter_time", "metrics/Set5/psnr"]


# ------------------------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9, 0.99])
def test_smoothing_is_the_weighted_mean_of_the_past(factor):
    values = np.random.default_rng(0).normal(size=50)
    expected = [np.average(values[: i + 1], weights=factor ** np.arange(i, -1.0, -1)) for i in range(50)]
    assert np.allclose(smooth(values, factor), expected, rtol=1e-12, atol=0)
    biased = 0.0
    for i, value in enumerate(values):  # as Adam defines it
        biased = factor * biased + (1 - factor) * value
        assert np.isclose(smooth(values, factor)[i], biased / (1 - factor ** (i + 1)), rtol=1e-9)


def test_smoothing_skips_what_is_not_finite():
    values = np.array([np.nan, 1, np.nan, 3])
    assert np.allclose(smooth(values, 0.5), [np.nan, 1, np.nan, (0.5 + 3) / 1.5], equal_nan=True)
    assert np.isnan(values[0]), "the values themselves are changed"


def test_best_of_a_metric():
    iterations = np.array([10, 20, 30, 40, 50])
    values = np.array([2.0, 5.0, 1.0, 5.0, np.nan])
    assert best_point("metrics/Set5/psnr", iterations, values) == (20, 5.0)
    assert best_point("metrics/Set5/lpips", iterations, values) == (30, 1.0)
    assert best_point("metrics/Set5/NIQE_y", iterations, values) == (30, 1.0)
    assert best_point("metrics/niqe_set/psnr", iterations, values) == (20, 5.0)
    assert best_point("metrics/Set5/psnr", iterations, values * np.nan) is None


# ------------------------------------------------------------------------------------------------------------ drawing


def test_panels_show_the_data_of_every_run():
    runs = {
        "long": {
            "losses/l_pix": series(0.5, 0.25, 0.125),
            "metrics/Set5/psnr": series(30.0, 31.236, 31.0),
            "train/lr": series(3e-4, 2e-4, 1e-4),
        },
        "short": {"losses/l_pix": series(0.6), "metrics/Set5/psnr": series(29.5)},
    }
    tags = ["losses/l_pix", "metrics/Set5/psnr", "train/lr"]
    figure = draw_training_curves(runs, tags, smoothing=0.5)
    loss, psnr, rate = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == tags
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["long", "short"]
    colours = [line.get_color() for line in figure.legends[0].get_lines()]
    assert len(set(colours)) == 2

    assert (loss.get_yscale(), psnr.get_yscale(), rate.get_yscale()) == ("log", "linear", "linear")
    assert [points(line) for line in lines(loss, "raw")] == [[[100, 0.5], [200, 0.25], [300, 0.125]], [[100, 0.6]]]
    assert [points(line) for line in lines(psnr, "raw")] == [[[100, 30], [200, 31.236], [300, 31]], [[100, 29.5]]]
    assert [points(line) for line in lines(rate, "raw")] == [[[100, 3e-4], [200, 2e-4], [300, 1e-4]]]
    smoothed = lines(loss, "smoothed")
    assert np.allclose(smoothed[0].get_ydata(), smooth(np.array([0.5, 0.25, 0.125]), 0.5))
    assert smoothed[0].get_linewidth() > lines(loss, "raw")[0].get_linewidth()
    assert smoothed[1].get_marker() == "o", "a single point is not visible as a line"
    assert not lines(psnr, "smoothed")
    assert not lines(rate, "smoothed")

    assert [points(star) for star in lines(psnr, "best")] == [[[200, 31.236]], [[100, 29.5]]]
    assert [text.get_text() for text in psnr.get_legend().get_texts()] == ["31.24 at 200", "29.50 at 100"]
    for kind, axes in (("smoothed", loss), ("raw", loss), ("raw", psnr), ("best", psnr)):
        assert [line.get_color() for line in lines(axes, kind)] == colours
    assert lines(rate, "raw")[0].get_color() == colours[0]
    assert loss.get_xlim() == psnr.get_xlim() == rate.get_xlim()
    assert loss.get_xlim()[0] < 100 < 300 < loss.get_xlim()[1]


def test_without_smoothing_the_values_are_drawn_in_full():
    figure = draw_training_curves({"run": {"losses/l_pix": series(0.5, 0.25)}}, ["losses/l_pix"], smoothing=0)
    (line,) = figure.axes[0].lines
    assert line.get_alpha() is None
    assert line.get_ydata().tolist() == [0.5, 0.25]


def test_losses_that_are_negative_or_not_finite():
    run = {"losses/l_g_gan": series(-0.5, 0.5), "losses/l_pix": series(0.1, np.inf), "losses/l_nan": series(np.nan)}
    figure = draw_training_curves({"run": run}, list(run))
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log", "linear"]
    figure.savefig(io.BytesIO(), format="png")
    assert all(np.isfinite(axes.get_ylim()).all() for axes in figure.axes)


def test_iterations_are_written_with_commas():
    figure = draw_training_curves({"run": {"train/lr": series(*range(11), step=50_000)}}, ["train/lr"])
    figure.canvas.draw()
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert "200,000" in labels
    assert "400,000" in labels


def test_many_runs_differ_and_a_panel_lists_the_best():
    runs = {f"run{i}": {"metrics/Set5/psnr": series(30 + i, 20)} for i in range(10)}
    (axes,) = draw_training_curves(runs, ["metrics/Set5/psnr"]).axes
    assert len({(line.get_color(), line.get_linestyle()) for line in lines(axes, "raw")}) == 10
    assert len({(line.get_color(), line.get_marker()) for line in lines(axes, "best")}) == 10
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [f"{39 - i}.00 at 100" for i in range(curves.MOST_LISTED)]


def test_any_name_is_written_as_it_is():
    names = ["_hidden", "costs $x_1$", "n" * 200]
    figure = draw_training_curves({name: {"train/lr": series(1, 2)} for name in names}, ["train/lr"])
    texts = figure.legends[0].get_texts()
    assert [text.get_text().replace("\n", "") for text in texts] == names
    figure.canvas.draw()
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


# ------------------------------------------------------------------------------------------------------- command line


def test_command_writes_a_picture(workplace, capsys):
    write_run("experiments/a")
    write_run("experiments/b", ROWS[:2])
    assert main(["experiments/a"]) == 0
    assert capsys.readouterr().out == "curves of 1 run, 4 panels: curves.png\n"
    with Image.open("curves.png") as first:
        assert (first.format, first.width) == ("PNG", 1200)
        pixels = np.asarray(first.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    arguments = ["experiments/a", "experiments/b/scalars.csv", "--tags", "losses/*", "-o"]
    assert main([*arguments, "new/two.png", "--smooth", "0.5"]) == 0
    assert capsys.readouterr().out == "curves of 2 runs, 1 panel: new/two.png\n"
    assert main([*arguments, "curves.png"]) == 0, "an existing picture is replaced"
    with Image.open("curves.png") as second:
        assert second.height < len(pixels)
    assert sorted(path.name for path in workplace.iterdir()) == ["curves.png", "experiments", "new"]


def test_script(workplace):
    write_run("run")
    done = subprocess.run([sys.executable, ROOT / "drct" / "curves.py", "run"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "curves of 1 run, 4 panels: curves.png\n"), done.stderr


KNOWN = "losses/l_pix train/lr metrics/Set5/psnr metrics/Set5/ssim"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["runs/aa"],
            "runs/aa does not exist (did you mean 'a'?): give the folder of a training run, experiments/<name>",
        ),
        (["no/run"], "no/run does not exist: give the folder of a training run, experiments/<name>"),
        (
            ["runs"],
            "runs has no scalars.csv: give the folder of a training run, experiments/<name>, where training writes "
            "that file",
        ),
        (
            ["other.csv"],
            "other.csv holds no scalars, as its first line is not iteration,tag,value: give the folder of a training "
            "run",
        ),
        (["runs/a", "runs/new"], "runs/new has no values yet: wait until the run has logged some"),
        (
            ["runs/a", "--tags", "train/lr", "loses/l_pix"],
            f"no tag matches loses/l_pix (did you mean 'losses/l_pix'?): choose --tags among {KNOWN}",
        ),
        (
            ["runs/times"],
            "no tag matches losses/* metrics/* train/lr*: choose --tags among train/iter_time train/data_time",
        ),
        (["runs/a", "--smooth", "1"], "--smooth must be from 0 to below 1, not 1"),
        (["runs/a", "-o", "curves.pdf"], "the picture is a PNG, but curves.pdf is not: -o curves.png"),
        (["runs/a", "-o", "runs"], "the picture is a PNG, but runs is a folder: -o runs/curves.png"),
        (
            ["runs/a", "-o", "other.csv/curves.png"],
            "cannot write other.csv/curves.png: Not a directory. Free space or choose another folder.",
        ),
    ],
)
def test_mistakes_are_explained_in_one_line(workplace, capsys, arguments, message):
    write_run("runs/a")
    write_run("runs/new", [])
    write_run("runs/times", ["1,train/iter_time,0.3", "1,train/data_time,0.1"])
    Path("other.csv").write_text("name,psnr\nbaby,30\n")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    if "other.csv/" in message:  # systems differ in the reason
        assert error.startswith("error: cannot write other.csv/curves.png: ")
    else:
        assert error == f"error: {message}\n"
    assert not list(workplace.rglob("*.png"))


def test_a_file_that_is_no_text(workplace):
    Path("scalars.csv").write_bytes(bytes(range(256)) * 2)
    with pytest.raises(DRCTError, match=r"^scalars\.csv holds no scalars"):
        read_scalars("scalars.csv")


def test_unreadable_file(workplace, monkeypatch, capsys):
    run = write_run("run")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main([str(run)]) == 2
    assert capsys.readouterr().err == "error: cannot read run/scalars.csv: Permission denied\n"


def test_without_matplotlib(workplace, monkeypatch, capsys):
    write_run("run")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed
    assert main(["run"]) == 2
    message = "error: drawing curves needs matplotlib, which is missing: pip install matplotlib\n"
    assert capsys.readouterr().err == message
    with pytest.raises(DRCTError, match="matplotlib"):
        draw_training_curves({}, [])
