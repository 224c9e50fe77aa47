"""A checkpoint of the reference implementation as a finished run, to evaluate, ask, serve and export."""

import hashlib
from dataclasses import replace
from pathlib import Path

from fcit.aggregation.privacy import Privacy
from fcit.benchmark.settings import StageSpec
from fcit.files import folder_aside, private
from fcit.methods.disco import Disco
from fcit.methods.tokens import TokenRouted
from fcit.recipe.config import Config
from fcit.rounds.server import Position
from fcit.runs.api import Run
from fcit.runs.session import Session
from fcit.types import SHARED_PROJECTOR, State
from fcit.watch import Silent
from fcit.worker.experiment import Experiment

TASK = "all"
"""The one task of an imported run: who trained what, and when, no checkpoint says."""


def import_reference(folder: str | Path, recipe: Config, out: str | Path) -> Run:
    """Write the reference implementation's checkpoint as a run folder with one stage and no log.

    recipe: says data, base model, identity encoder and evaluation; its setting gives the datasets. The
    run's method is disco with the checkpoint's rank and scale, and its state has every slot as a
    subspace, so that the softmax of the reference's inference (Guo et al. 2025, section 4.2) is
    reproduced: a slot that was never opened has a cosine of 0. The run has no accuracies until `fcit
    evaluate` measures them. Raises FcitError where the checkpoint does not fit the base model, and where
    `out` is not new.
    """
    from fcit.models.reference import read
    from fcit.models.size import encoder_size, model_size

    folder, out = Path(folder), Path(out)
    experiment = Experiment(recipe)
    path, clip = experiment.model_path(), experiment.identity_path()
    found = read(folder, model_size(path, clip), encoder_size(clip)[0])
    method = Disco(rank=found.rank, scale=found.scale)
    setting = replace(
        recipe.setting,
        name=f"{recipe.setting.name}-imported",
        order=(),
        tasks={TASK: experiment.setting.datasets},
        stages=(StageSpec((TASK,), rounds=1),),
    )
    names = list(map(str, range(len(found.slots))))
    tokens = {"tokens": found.tokens, "samples": found.samples}
    state = State(
        dict(zip(names, found.slots, strict=True)),
        {SHARED_PROJECTOR: found.projector, TokenRouted.tokens_name: tokens},
    )
    with (folder / "adapter_model.bin").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    # How it was trained, the recipe does not know: no epsilon, no ranks by client.
    federation = replace(recipe.federation, ranks=())
    config = replace(
        recipe, method=method, setting=setting, federation=federation, privacy=Privacy()
    )
    with folder_aside(out) as aside:
        session = Session(config, aside, Silent())
        session.begin(imported=f"{folder.name}, sha256 {digest}")
        with private(aside):
            session.folder.commit(state, Position(0, 1, ended=True))
    return Run(out)
