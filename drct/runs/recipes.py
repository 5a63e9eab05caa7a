"""Reading the recipe of a degradation: a chain of steps, or a training option file."""

from pathlib import Path

from drct.data.recipes import Recipe, StepRecipe, TrainingRecipe
from drct.errors import DRCTError
from drct.files import expanded, is_file
from drct.runs.checks import validated
from drct.runtime.yaml_file import load_yaml
from drct.schema.options import TrainingOptions

# Recipes that come with the project, in options/train
NAMED = {"real": "train_Real_DRCT_SRx4_mse_model.yml", "light": "train_Real_DRCT-XS_SRx4.yml"}


def read_recipe(text: str) -> Recipe:
    """Return the recipe of `--recipe`: steps, clean, real, light, or the path of a training option file.

    Raises:
        DRCTError: if it is none of these, or the option file has a mistake or trains on pairs.
    """
    file = Path(__file__).resolve().parents[2] / "options" / "train" / NAMED[text] if text in NAMED else expanded(text)
    if text not in NAMED and file.suffix not in (".yml", ".yaml"):
        return StepRecipe(text)
    if not is_file(file):
        raise DRCTError(f"--recipe {text}: no such option file: {file}")
    options = validated(load_yaml(file), is_train=True, file=str(file))
    if not isinstance(options, TrainingOptions) or options.datasets.train.type != "RealESRGANDataset":
        raise DRCTError(f"--recipe {text}: {file} does not degrade images: datasets.train is no RealESRGANDataset")
    return TrainingRecipe(options, text)
