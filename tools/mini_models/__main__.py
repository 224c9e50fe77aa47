"""`python -m tools.mini_models DIR`: make the mini model and the mini CLIP from nothing."""

import argparse
import sys
from pathlib import Path

from fcit.types import FcitError
from tools.mini_models.pretrain import pretrain

parser = argparse.ArgumentParser(
    prog="python -m tools.mini_models",
    description="Make the mini model and the mini CLIP from nothing, on the generic mixture. Goes on "
    "where it stopped when DIR holds an unfinished pretraining.",
)
parser.add_argument("folder", type=Path, metavar="DIR", help="where the checkpoints go")
parser.add_argument("--seed", type=int, default=0, help="of all its random choices [0]")
asked = parser.parse_args()
try:
    pretrain(asked.folder, seed=asked.seed)
except FcitError as error:
    print(f"mini_models: {error}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    print("stopped; the same command goes on from there", file=sys.stderr)
    sys.exit(130)
