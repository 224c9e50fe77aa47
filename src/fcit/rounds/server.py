"""The stage and round loop: federate() is federated continual instruction tuning on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from fcit.aggregation import privacy, robust
from fcit.aggregation.averaging import exact
from fcit.aggregation.packing import pack_state
from fcit.aggregation.privacy import Privacy
from fcit.methods import Method
from fcit.optimizers import Optimizer
from fcit.optimizers.base import carry_memory, groups, server_step
from fcit.rounds.acceptance import Reply
from fcit.rounds.federation import Federation
from fcit.rounds.journal import InMemory, Journal
from fcit.rounds.replies import gather, named, tokens
from fcit.seeds import torch_stream
from fcit.types import Fault, FcitError, Identity, Job, Setting, State, Turn, Update
from fcit.weights import find_nonfinite, flatten, kinds, state_bytes

if TYPE_CHECKING:
    from torch import Tensor


class Engine(Protocol):
    """Brings jobs to clients and their replies back, in any order. A Fault stands for a reply that did
    not come or could not be read. States travel in the form of `packing`."""

    def identify(self, turns: Sequence[Turn]) -> Iterable[Identity | Fault]:
        """Ask clients for their identity tokens."""
        ...

    def run(self, jobs: Sequence[Job]) -> Iterable[Update | Fault]:
        """Let clients train."""
        ...


@dataclass(frozen=True)
class FederatedRun:
    """What stays the same from a run's first round to its last."""

    setting: Setting
    plan: Sequence[Sequence[Sequence[Turn]]]
    """Who trains what: [stage][round][slot] (see `schedule.plan`)."""
    method: Method
    optimizer: Optimizer = field(default_factory=Optimizer)
    federation: Federation = field(default_factory=Federation)
    privacy: Privacy = field(default_factory=Privacy)
    seed: int = 0
    """Seed of int8's rounding and of the privacy noise."""


@dataclass(frozen=True)
class Position:
    """How far a run is."""

    stage: int = 0
    rounds: int = 0
    """Rounds of this stage that are done."""
    ended: bool = False
    """Whether the stage has ended too."""


@dataclass(frozen=True)
class Round:
    """What one round did, for the log. Jobs, updates and bytes are those of the accepted clients, by
    client id."""

    jobs: Sequence[Job]
    updates: Sequence[Update]
    identities: Sequence[Identity]
    """Identity tokens of clients that were asked for the first time."""
    bytes_down: Sequence[int] = ()
    bytes_up: Sequence[int] = ()
    faults: Sequence[Fault] = ()
    """What was wrong with the other clients."""
    notes: Sequence[str] = ()
    """Robust rules that a cohort was too small for."""


def federate(
    run: FederatedRun,
    state: State,
    engine: Engine,
    done: Position | None = None,
    journal: Journal | None = None,
) -> Iterator[tuple[State, Position, Round | None]]:
    """Do what is left of a run; yield the state after every round, and after every stage (without a
    Round), for the caller to commit before it asks for the next one.

    `state` is the method's start, or what was committed with `done`: a run that is cut off and goes on
    from there ends in the same bits, and clients whose replies are in `journal` are not asked again.
    Raises FcitError when a round has too few replies.
    """
    done = done or Position()
    for number, stage in enumerate(run.setting.stages):
        if number < done.stage:
            continue
        rounds = run.plan[number]
        resumed = done if number == done.stage else Position()
        if not resumed.rounds:
            state = carry_memory(state, run.method.begin(state, stage))
            state = replace(state, optimizer=run.optimizer.begin(state.optimizer))
        if not resumed.ended:
            for index in range(resumed.rounds, len(rounds)):
                state, report = take_round(run, state, rounds[index], engine, journal)
                yield state, Position(number, index + 1), report
            ended = replace(run.method.end(state, stage), optimizer=state.optimizer)
            _require_finite(ended, state, f"the end of stage {number + 1}")
            state = ended
        yield state, Position(number, len(rounds), True), None


def take_round(
    run: FederatedRun,
    state: State,
    turns: Sequence[Turn],
    engine: Engine,
    journal: Journal | None = None,
) -> tuple[State, Round]:
    """Identify, organise, send, train, judge, aggregate, step: one round of one stage."""
    method, rules, journal = run.method, run.federation, journal or InMemory()
    key = turns[0].stage, turns[0].round
    journal.begin(*key)
    asked = method.to_identify(state, turns)
    identities, lost = _identify(asked, method.tokens(state), engine, journal)
    silent = {turn.client for turn in asked} - {identity.client for identity in identities}
    present = [turn for turn in turns if turn.client not in silent]
    _require_enough(present, turns, lost, rules)
    state, jobs = hand_out(run, state, present, identities)
    lost = lost + [
        Fault(turn.client, "unmatched", reason)
        for turn in present
        if (reason := method.reason_to_skip(state, turn))
    ]
    _require_enough(jobs, turns, lost, rules)
    packed = _packed(run, jobs, key)
    left = [job for job in packed if job.turn.client not in journal.replies()]
    incoming = engine.run(left) if left else ()
    replies, faults = gather(
        incoming, jobs, method, run.optimizer, journal, rules.wire, rules.outlier_factor
    )
    _require_enough(replies, turns, [*lost, *faults], rules)
    updates = [reply.update for reply in replies]
    after, notes = method.aggregate(state, updates), list[str]()
    if rules.average == "product":
        after = exact(after, updates)
    if rules.robust != "mean":
        after, notes = robust.aggregate(after, updates, rules.robust, rules.byzantine_share)
    if run.privacy.on:
        noise = run.privacy.stream(run.seed, "updates", *key)
        norms = [reply.norm for reply in replies]
        after = privacy.aggregate(state, after, updates, norms, run.privacy, noise)
    accepted = {update.client for update in updates}
    trained = [job.turn for job in jobs if job.turn.client in accepted]
    after = server_step(run.optimizer, state, after, trained, updates, method.trained_extras)
    _require_finite(after, state, _name_round(*key), replies)
    report = Round(
        [job for job in jobs if job.turn.client in accepted],
        updates,
        identities,
        [_bytes(job.received) for job in packed if job.turn.client in accepted],
        [reply.size for reply in replies],
        [*lost, *faults],
        notes,
    )
    return after, report


def _identify(
    asked: Sequence[Turn], stored: Tensor | None, engine: Engine, journal: Journal
) -> tuple[list[Identity], list[Fault]]:
    """The round's first-time tokens, from the journal or else from the clients."""
    known = journal.identities()
    if known is not None:
        return known
    width = None if stored is None else stored.shape[-1]
    identities, faults = tokens(engine.identify(asked), asked, width)
    journal.keep_identities(identities, faults)
    return identities, faults


def _require_enough(
    left: Sequence[object], turns: Sequence[Turn], faults: Sequence[Fault], rules: Federation
) -> None:
    """Raise FcitError when too few of a round's clients are left."""
    quorum = min(rules.min_clients or len(turns), len(turns))
    if len(left) < quorum:
        raise FcitError(
            f"{_name_round(turns[0].stage, turns[0].round)}: {len(left)} of {len(turns)} clients gave "
            f"a valid update, but {quorum} are needed: {'; '.join(map(named, faults))}. Fix the cause "
            "and go on with --resume, or go on without these clients: --set federation.min_clients=N"
        )


def hand_out(
    run: FederatedRun, state: State, turns: Sequence[Turn], identities: Sequence[Identity]
) -> tuple[State, list[Job]]:
    """Organise and send: what a round's clients are given. A client that the method has a reason to
    skip gets no job."""
    state = carry_memory(state, run.method.organise(state, identities))
    placed = [turn for turn in turns if not run.method.reason_to_skip(state, turn)]
    return state, [Job(turn, _sent(run, state, turn), run.setting.epochs) for turn in placed]


def _require_finite(after: State, before: State, where: str, replies: Sequence[Reply] = ()) -> None:
    """Raise FcitError when numbers that are not finite would be committed."""
    for parts, old in zip(kinds(after), kinds(before), strict=True):
        if tensor := find_nonfinite(parts, old):
            fix = "Start again with a lower federation.outlier_factor or another federation.robust"
            if replies:
                client = max(replies, key=lambda reply: reply.norm).update.client
                fix = (
                    f"Delete journal/{client}.safetensors in the run's folder (the client with the "
                    f"largest norm), then go on with --resume. Or {fix[0].lower()}{fix[1:]}"
                )
            raise FcitError(f"{where}: the aggregate is not finite ({tensor}). {fix}")


def _name_round(stage: int, number: int) -> str:
    return f"stage {stage + 1}, round {number + 1}"


def _sent(run: FederatedRun, state: State, turn: Turn) -> State:
    """What a client gets: the method's part and the optimizer's."""
    sent = run.method.send(state, turn)
    trained = groups(run.method.trains(sent), sent.projector is not None)
    return replace(sent, optimizer=run.optimizer.send(state.optimizer, trained))


def _packed(run: FederatedRun, jobs: Sequence[Job], key: tuple[int, int]) -> list[Job]:
    """The jobs in their form on the wire; what several clients get is packed once."""
    wire = run.federation.wire
    if wire == "float32":
        return list(jobs)
    seen: dict[tuple[tuple[str, int], ...], State] = {}
    packed: list[Job] = []
    for job in jobs:
        # the names too: fresh subspaces are the same blank tensors
        content = tuple((name, id(tensor)) for name, tensor in flatten(job.received).items())
        if content not in seen:
            noise = torch_stream(run.seed, "wire", "down", *key, len(seen))
            seen[content] = pack_state(job.received, wire, noise)
        packed.append(replace(job, received=seen[content]))
    return packed


def _bytes(sent: State) -> int:
    return sum(map(state_bytes, kinds(sent)))
