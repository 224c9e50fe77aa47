"""The work of one process: a base model, loaded once, that trains clients and answers questions."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from fcit.aggregation.packing import pack_message, unpack_message
from fcit.aggregation.privacy import Privacy, aggregate, hide_token
from fcit.methods import Method
from fcit.models import uncollected
from fcit.optimizers import Optimizer
from fcit.recipe.config import Config
from fcit.recipe.sections import DataSection
from fcit.rounds.acceptance import sizes
from fcit.rounds.client import Data, identify, take_turn
from fcit.rounds.evaluate import Answer, answer, chunks
from fcit.seeds import torch_stream
from fcit.types import FcitError, Identity, Job, Parts, Sample, Score, State, Turn, Update, Weights
from fcit.weights import threads
from fcit.worker.cache import cache_folder
from fcit.worker.experiment import Experiment

SMALLER_ENCODER = "name a smaller one in model.identity"
LESS_TRAINING = "set training.micro_batch = 1, training.checkpointing = true, or a lower batch_size"

NO_FLOOR = Privacy(seeded_noise=False)


class ModelWorker:
    """Holds the base model of one process, and does what the server or a client needs done with it.

    own: a client's own data; floor: the clipping and noise that it applies at least, whatever the
    recipe says. Raises FcitError where the floor could not cover what the method sends.
    """

    def __init__(self, config: Config, own: DataSection | None = None, floor: Privacy = NO_FLOOR):
        with uncollected():
            import torch

        torch.set_num_threads(config.training.threads)
        self.experiment, self.floor = Experiment(config, own), floor
        if floor.on:
            check_floor(self.experiment.method, self.experiment.optimizer)
        self.config, self.method = config, self.experiment.method
        self.placed: State = State()

    @cached_property
    def model(self):
        """The base model."""
        from fcit.models.device import choose, enough_memory

        section = self.config.model
        device, dtype = choose(section.device, section.dtype)
        instead = 'set model.dtype = "bfloat16" or model.quantize'
        with uncollected(), enough_memory("loading the model", instead):
            from fcit.models.lmm import LMM

            return LMM(
                self.experiment.model_path(),
                device,
                dtype,
                cache_folder() / "features" if section.cache_features else None,
                self.config.training.max_length,
                quantize=section.quantize,
                device_map=section.device_map,
                template=section.template,
                clip=section.identity,
            )

    @cached_property
    def encoder(self):
        """The frozen identity encoder."""
        from fcit.models.device import choose, enough_memory

        device, _ = choose(self.config.model.device, "float32")
        with uncollected(), enough_memory("loading the identity encoder", SMALLER_ENCODER):
            from fcit.models.identity import Encoder

            return Encoder(self.experiment.identity_path(), device, self.method.identity or "text")

    def start(self) -> State:
        """The method's state before the first round. Raises FcitError where the base model's template
        cannot be trained with."""
        if self.experiment.plan:
            self.model.chat.require_end()
        noise = torch_stream(self.config.seed, "init")
        blank = self.model.blank(self.method.rank, self.method.init_std, noise)
        return self.method.start(blank, self.model.base_projector, self.config.seed)

    def token_width(self) -> int:
        """How many numbers an identity token has; 0 for a method without tokens."""
        kind = self.method.identity
        return self.method.token_width(self.encoder.features.encoding.width(kind)) if kind else 0

    def identify(self, turn: Turn) -> Identity:
        """One client's identity token."""
        from fcit.models.device import enough_memory

        encoder, data = self.encoder, self.experiment.data(turn, replay=False)
        with enough_memory(f"the identity encoder of client {turn.client}", SMALLER_ENCODER):
            identity = identify(self.method, encoder, turn, data)
        privacy = stronger(self.config.privacy, self.floor)
        if not privacy.on:
            return identity
        noise = privacy.stream(self.config.seed, "token", turn.client, turn.task.name)
        return hide_token(identity, privacy, noise)

    def check_lengths(self, samples: Sequence[Sample], loaded: bool = True) -> int:
        """The number of training samples whose answers `training.max_length` cuts off somewhere. loaded:
        whether the base model is, or may be, for it. Raises FcitError naming the first whose image, or
        whole answer, it cuts off."""
        section, data = self.config.model, self.experiment.data_of(samples)
        if loaded:
            chat, images = self.model.chat, self.model.images
        else:
            from fcit.models.size import TokenCounter

            path = self.experiment.model_path()
            counter = TokenCounter(path, section.identity, section.template, local=False)
            chat, images = counter.readers(self.config.training.max_length)
        texts = images.texts(data.images)
        return sum(chat.cuts_off(*pair) for pair in zip(samples, texts, strict=True))

    def train(self, job: Job, memory: Weights) -> tuple[Update, Weights]:
        """One client's turn; the job and the update are encoded for the wire."""
        from fcit.models.device import enough_memory

        turn, wire, seed = job.turn, self.config.federation.wire, self.config.seed
        job = replace(job, received=unpack_message(job.received, wire, State()))
        model, data = self.model, self.experiment.data(turn)
        with enough_memory(f"client {turn.client}'s training", LESS_TRAINING):
            update, memory = take_turn(
                job,
                self.method,
                model,
                data,
                self.config.training,
                seed,
                memory,
                self.experiment.optimizer,
            )
        if self.floor.on:
            update = hide_update(update, job.received, self.floor)
        noise = torch_stream(seed, "wire", "up", turn.stage, turn.round, turn.client)
        return pack_message(update, wire, noise, job.received), memory

    def place(self, state: State) -> None:
        """Load a state into the model, to answer with."""
        self.placed = state
        self.model.receive(state, self.method.scale)
        self.method.equip(self.model, state)

    def answer(self, data: Data) -> list[Answer]:
        """Answers of the loaded state."""
        from fcit.models.device import enough_memory

        encoder = self.encoder if self.method.identity else None
        tokens = self.config.evaluation.max_new_tokens
        less = "lower evaluation.batch_size"
        with threads(self.config.training.threads), enough_memory("answering", less):
            return answer(self.model, encoder, self.method, self.placed, data, tokens)

    def answers(self, samples: Sequence[Sample]) -> list[Answer]:
        """Answers of the loaded state to samples of the data folder, asked in a run's batches."""
        found: dict[int, Answer] = {}
        for batch in chunks(samples, self.config.evaluation.batch_size):
            said = self.answer(self.experiment.data_of([samples[i] for i in batch]))
            found |= zip(batch, said, strict=True)
        return [found[i] for i in range(len(samples))]

    def score(self, client: int, dataset: str) -> Score:
        """The score of the loaded state on a client's own test samples."""
        samples = self.experiment.test_share(dataset, client)
        if not samples:
            return Score(client, dataset, 0.0, 0)
        said = [answer.text for answer in self.answers(samples)]
        score = self.experiment.score(dataset, said, samples)
        return Score(client, dataset, sum(score.each), len(samples))


# -- a client's own floor of privacy: it clips and noises what it sends, whatever the recipe says ----


def check_floor(method: Method, optimizer: Optimizer) -> None:
    """Raise FcitError where clients send more than changes, which clipping and noise would not cover."""
    kind = type(optimizer).__name__.lower()
    for excluded, who in (
        (method.sends_statistics, method.name),
        (optimizer.reports(("adapters.0", "projector")), kind),
    ):
        if excluded:
            raise FcitError(
                f"clip_norm: {who} sends more than the change of what it trained, which this client's "
                "own clipping and noise (--node-config) would not cover"
            )


def stronger(recipe: Privacy, floor: Privacy) -> Privacy:
    """The recipe's privacy with at least the floor's noise on tokens, which then nobody can repeat."""
    if not floor.on:
        return recipe
    noise = max(recipe.token_noise, floor.token_noise)
    return replace(floor, token_noise=noise)


def hide_update(update: Update, received: State, floor: Privacy) -> Update:
    """An update whose change has at most the norm `clip_norm`, with noise of the standard deviation
    clip_norm * noise_multiplier on every number. Sample count, loss and steps stay as they are."""

    def held(base: Parts, parts: Parts) -> dict[str, Weights]:
        return {name: {key: base[name][key] for key in parts[name]} for name in parts}

    old = State(held(received.adapters, update.adapters), held(received.extras, update.extras))
    norm, _ = sizes(update, old, list(update.extras))
    noise = floor.stream(0, "own")
    hidden = aggregate(old, State(), [old], [update], [norm], floor, noise)
    return replace(update, adapters=hidden.adapters, extras=hidden.extras)
