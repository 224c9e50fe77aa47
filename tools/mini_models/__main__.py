"""`python -m tools.mini_models DIR`: train the mini model and the mini CLIP from random weights."""

import argparse
import sys
from pathlib import Path

from fcit.types import FcitError
from tools.mini_models.pretrain import pretrain

parser = argparse.ArgumentParser(
    prog="python -m tools.mini_models",
    description="Train the mini model and the mini CLIP from random weights on the generic mixture. "
    "Continues if DIR holds an unfinished pretraining.",
)
parser.add_argument("folder", type=Path, metavar="DIR", help="folder for the checkpoints")
parser.add_argument("--seed", type=int, default=0, help="seed of all random choices [0]")
options = parser.parse_args()
try:
    pretrain(options.folder, seed=options.seed)
except (FcitError, OSError) as error:
    print(f"mini_models: {error}", file=sys.stderr)
    sys.exit(2)
except KeyboardInterrupt:
    print("stopped; the same command continues", file=sys.stderr)
    sys.exit(130)
