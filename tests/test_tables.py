"""The tables of the README and the docs: made from what was measured, found when stale, and nothing else touched."""

import json
import re
import shutil

import pytest
import tables
from conftest import ROOT

PAGES = "".join(
    page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
)


@pytest.fixture
def copy(workplace):
    """What the README's tables are made from."""
    shutil.copytree(ROOT / "figures", workplace / "figures", ignore=shutil.ignore_patterns("*.png", "*.gif"))
    return workplace


def table_of(name, text=PAGES):
    return re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)[1]


def part(*names):
    """Some of the README's tables, with their markers: others take their time."""
    return "".join(f"# {name}\n\n<!-- table: {name} -->\n{table_of(name)}<!-- end -->\n" for name in names)


def test_the_tables_of_the_notes_are_what_was_measured_and_published(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert tables.main(["--check"]) == 0, capsys.readouterr().err
    notes = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    found = {name for note in notes for name, *_ in tables._marked(note.read_text(encoding="utf-8"))}
    assert found == set(tables.TABLES)


def test_several_files_are_rewritten_and_by_default_the_readme_and_the_docs(copy, capsys):
    right = {"README.md": part("published"), "docs/speed.md": part("speed"), "docs/other.md": "no table\n"}
    (copy / "docs").mkdir()
    for name, text in right.items():
        (copy / name).write_text(text.replace("fp32", "fp33").replace("28.70", "28.71"), encoding="utf-8")
    assert tables.main(["docs/speed.md", "README.md", "--check"]) == 1
    assert re.findall(r"error: (\S+), table", capsys.readouterr().err) == ["docs/speed.md", "README.md"]
    assert tables.main([]) == 0
    assert {name: (copy / name).read_text(encoding="utf-8") for name in right} == right


def test_complexity_stands_beside_the_published_figures_of_the_same_network():
    rows = [line.strip("| ").split(" | ") for line in table_of("complexity").splitlines()]
    published = {row[0]: row[-1] for row in rows if ":" in row[-1]}
    assert published == {
        "DRCT-C144": "DRCT: 10.443 M, 5.92 G, 1857.55 MB",
        "DRCT-L": "DRCT-L: 27.580 M, 9.20 G, 4278.19 MB",
        "HAT-S": "HAT: 9.621 M, 11.22 G, 2053.42 MB",
        "HAT-L": "HAT-L: 40.846 M, 76.69 G, 5165.39 MB",
    }


@pytest.mark.parametrize("table", ["complexity", "features", "published", "results", "speed", "training-step"])
def test_an_edited_number_is_found_and_put_right(copy, capsys, table):
    right = part(table, "published") if table != "published" else part(table, "speed")
    number = re.search(r"\d+\.\d\d", right)[0]
    edited = right.replace(number, f"{float(number) + 0.01:.2f}", 1)
    assert edited != right
    (copy / "README.md").write_text(edited, encoding="utf-8")
    assert tables.main(["--check"]) == 1
    told = f"error: README.md, table {table} is stale: python figures/tables.py README.md rewrites it"
    assert capsys.readouterr().err.strip() == told
    assert (copy / "README.md").read_text(encoding="utf-8") == edited
    assert tables.main([]) == 0
    assert (copy / "README.md").read_text(encoding="utf-8") == right
    assert tables.main(["--check"]) == 0


def test_a_changed_measurement_makes_its_table_stale(copy, capsys):
    (copy / "README.md").write_text(part("training-step", "speed"), encoding="utf-8")
    content = json.loads((copy / "figures/speed.json").read_text())
    content["results"][0]["seconds"] = [100.0]
    (copy / "figures/speed.json").write_text(json.dumps(content))
    assert tables.main(["--check"]) == 1
    assert re.findall(r"table (\S+) is stale", capsys.readouterr().err) == ["speed"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_text_outside_the_markers_stays_byte_for_byte(copy, newline):
    before = f"\ufeff# Title  {newline}\t×\u2028 no | table {newline * 3}<!-- a comment -->{newline}"
    after = f"tail without a newline{newline} | 1 | \x0c"
    text = f"{before}<!-- table: published -->{newline}old<!-- end -->{after}"
    (copy / "notes.md").write_bytes(text.encode())
    assert tables.main(["notes.md"]) == 0
    made = (copy / "notes.md").read_bytes().decode()
    table = made.removeprefix(f"{before}<!-- table: published -->{newline}").removesuffix(f"<!-- end -->{after}")
    assert made != text and len(made) == len(text) - len("old") + len(table)
    assert table == table_of("published").replace("\n", newline)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\n<!-- table: complexty -->\n<!-- end -->", "line 2: no table 'complexty' (did you mean 'complexity'?)"),
        ("<!-- table: speed -->\n", "table speed has no <!-- end -->"),
        ("a\n\n<!-- end -->", "line 3: <!-- end --> without a table before it"),
        ("<!-- table: speed -->\n<!-- table: results -->\n<!-- end -->", "line 2: a table before the end of another"),
        ("<!-- table: speed --> | 1 |\n<!-- end -->", "needs a line of its own"),
    ],
)
def test_wrong_markers_are_errors_that_leave_the_file_alone(copy, capsys, text, told):
    (copy / "notes.md").write_text(text)
    assert tables.main(["notes.md"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: notes.md: ") and told in error and error.count("\n") == 1
    assert (copy / "notes.md").read_text() == text


def test_a_table_whose_figures_are_missing_stays_and_is_told_and_the_others_are_made(copy, capsys):
    (copy / "figures/training_step.json").unlink()
    right = part("training-step", "published")
    (copy / "README.md").write_text(right.replace("28.70", "28.71"), encoding="utf-8")
    assert tables.main(["--check"]) == 1
    assert tables.main([]) == 1
    assert "error: README.md, table training-step: figures/training_step.json" in capsys.readouterr().err
    assert (copy / "README.md").read_text(encoding="utf-8") == right


def test_results_of_test_runs_are_kept_and_their_means_shown(copy):
    (copy / "README.md").write_text(part("results"), encoding="utf-8")
    run = copy / "results" / "other"
    for folder in (run, copy / "figures/results/other"):
        folder.mkdir(parents=True)
    (copy / "figures/results/other/metrics_Gone.json").write_text("of an earlier run")
    shipped = ROOT / "figures/results/DRCT-XS_SRx4"
    content = json.loads((shipped / "metrics_Set5.json").read_text())
    for values in content["images"].values():
        values["psnr"] += 1
    (run / "metrics_Set5.json").write_text(json.dumps(content))
    options = {"scale": 4, "path": {"root": "/home/somebody"}, "val": {"metrics": {"psnr": {"crop_border": 4}}}}
    (run / "settings.json").write_text(json.dumps({"options": options}))
    assert tables.main(["--results", "results/other"]) == 0
    kept = copy / "figures/results/other"
    assert sorted(file.name for file in kept.iterdir()) == ["metrics_Set5.json", "settings.json"]
    assert "somebody" not in (kept / "settings.json").read_text()
    table = table_of("results", (copy / "README.md").read_text(encoding="utf-8"))
    assert "| Set5 | psnr ↑ | 28.40 | 31.74 |" in table_of("results")
    assert "| Set5 | psnr ↑ | 28.40 | 31.74 | 32.74 |" in table.replace("**", "")


def test_results_that_do_not_tell_how_they_were_measured_are_refused(copy, capsys):
    (copy / "README.md").write_text(part("results"), encoding="utf-8")
    (copy / "run").mkdir()
    shutil.copy(ROOT / "figures/results/DRCT-XS_SRx4/metrics_Set5.json", copy / "run")
    assert tables.main(["--results", "run"]) == 2
    assert "run has no settings.json" in capsys.readouterr().err
    assert not (copy / "figures/results/run").exists()


def test_the_results_shipped_are_means_of_their_images():
    for file in (ROOT / "figures/results/DRCT-XS_SRx4").glob("metrics_*.json"):
        content = json.loads(file.read_text())
        for part in (content, content["bicubic"]):
            for metric, mean in part["mean"].items():
                values = [values[metric] for values in part["images"].values()]
                assert mean == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_a_file_that_is_not_there_is_told(workplace, capsys):
    assert tables.main([]) == 2
    assert "error: cannot read README.md" in capsys.readouterr().err
