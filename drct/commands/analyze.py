"""The command `drct analyze`, which looks into networks."""

from drct.commands.common import Commands, help_text, run_command

ANALYSES: Commands = {
    "features": ("drct.commands.analyze_features", "intensity of the features through the depth of networks"),
    "lam": ("drct.commands.analyze_lam", "input pixels that a patch of the result depends on, and the receptive field"),
}
EXAMPLES = """\
examples:
  drct analyze features DRCT-XS_SRx4 --input photo.png -o features
  drct analyze lam DRCT-XS_SRx4 --input photo.png --patch 40,60,16 -o lam

`drct analyze <command> --help` describes each command."""


def main(argv: list[str]) -> int:
    """Run the analysis that the first argument names. Returns its exit status, or 2 if there is no such analysis."""
    text = help_text("drct analyze", "Look into networks.", ANALYSES, EXAMPLES)
    return run_command("drct analyze", ANALYSES, text, argv)
