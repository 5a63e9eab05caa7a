"""Networks of training runs: the weights in the folder of a run, and the option file beside them."""

from contextlib import suppress
from pathlib import Path

from drct.errors import DRCTError
from drct.inference.notes import note
from drct.inference.sources.registry_networks import NetworkOptions, network_options

PREFERRED = "net_g_best"


def weights_of_run(folder: Path) -> tuple[Path, str] | None:
    """Return the weights to take from the folder of a run, or its subfolder models, and the name of the run.

    These are the best ones by validation if the run has kept them, or else the newest. A note says which.

    Returns:
        The file and the name; None if the folder is not of a run.

    Raises:
        DRCTError: if the run has no weights.
    """
    models = folder if folder.name == "models" else folder / "models"
    if (folder / "config.json").exists() or not models.is_dir():
        return None
    files = {file.stem: file for file in models.glob("net_g_*.pth")}
    numbered = {int(stem.split("_")[-1]): file for stem, file in files.items() if stem.split("_")[-1].isdigit()}
    newest = numbered[max(numbered)] if numbered else files.get("net_g_latest")
    chosen = files.get(PREFERRED, newest)
    if chosen is None:
        raise DRCTError(f"{models} has no weights net_g_<iteration>.pth")
    note(f"{folder}: taking {chosen.name}, the {'best' if chosen.stem == PREFERRED else 'newest'} weights of the run")
    return chosen, models.resolve().parent.name


def options_of_run(file: Path) -> NetworkOptions | None:
    """Return the network of the run that a weight file lies in, from its option file; None if there is none.

    Raises:
        DRCTError: if the folder has option files of several networks.
    """
    if file.parent.name != "models" or not file.name.startswith("net_g_"):
        return None
    found: list[NetworkOptions] = []
    for path in sorted(file.parent.parent.glob("*.yml")):
        with suppress(DRCTError):  # another kind of file
            found.append(network_options(path))
    if any(options.network_g != found[0].network_g for options in found):
        names = ", ".join(options.where for options in found)
        raise DRCTError(f"{file} belongs to a run with several networks: choose one of {names} with --network")
    return found[0] if found else None
