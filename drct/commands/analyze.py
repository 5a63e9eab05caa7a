"""The command `drct analyze`: looks into networks."""

from drct.commands.common import Commands, help_text, run_command

ANALYSES: Commands = {
    "architecture": ("drct.analysis.architecture_command", "drawing of a network with the dimensions of its layers"),
    "features": ("drct.commands.analyze_features", "intensity of the features through the depth of networks"),
    "lam": (
        "drct.commands.analyze_lam",
        "which input pixels a patch of the result depends on, and the receptive field",
    ),
}
EXAMPLES = """\
examples:
  drct analyze architecture DRCT-L -o DRCT-L.png
  drct analyze features DRCT-XS_SRx4 --input photo.png -o features
  drct analyze lam DRCT-XS_SRx4 --input photo.png --patch 40,60,16 -o lam

`drct analyze <command> --help` tells more of each."""


def main(argv: list[str]) -> int:
    """Entry point of `drct analyze`. Returns the analysis's exit status; 2 if there is no such analysis."""
    text = help_text("drct analyze", "Look into networks.", ANALYSES, EXAMPLES)
    return run_command("drct analyze", ANALYSES, text, argv)
