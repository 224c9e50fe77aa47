"""The stage and round loop: federate() is federated continual instruction tuning on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from fcit.aggregation import privacy, robust
from fcit.aggregation.averaging import Average, exact
from fcit.aggregation.packing import Wire, pack_state
from fcit.aggregation.privacy import Privacy
from fcit.methods import Method
from fcit.optimizers import Optimizer
from fcit.optimizers.base import carry_memory, groups, server_step
from fcit.rounds.replies import InMemory, Journal, gather, named, tokens
from fcit.seeds import torch_stream
from fcit.types import Fault, FcitError, Identity, Job, Setting, State, Turn, Update
from fcit.weights import flatten, kinds, odd_number, state_bytes

if TYPE_CHECKING:
    from torch import Tensor


class Engine(Protocol):
    """Whatever brings jobs to clients and their replies back, in any order; a Fault stands for a reply
    that did not come or could not be read. States travel in the form of `packing`."""

    def identify(self, turns: Sequence[Turn]) -> Iterable[Identity | Fault]:
        """Ask clients for their identity tokens."""
        ...

    def run(self, jobs: Sequence[Job]) -> Iterable[Update | Fault]:
        """Let clients train."""
        ...


@dataclass(frozen=True)
class RoundRules:
    """How a round is held. quorum: accepted updates it needs (0: everyone's). outlier_factor: how
    many times the round's median change is too much (0: no bound). robust: the cohorts' rule, with
    `byzantine_share` the share of a cohort that may lie. wire: in what form tensors travel. seed:
    of the rounding and the noise."""

    average: Average = "factors"
    quorum: int = 0
    outlier_factor: float = 0.0
    robust: robust.Rule = "mean"
    byzantine_share: float = 0.2
    wire: Wire = "float32"
    privacy: Privacy = field(default_factory=Privacy)
    seed: int = 0


@dataclass(frozen=True)
class Position:
    """How far a run is: `rounds` of stage `stage` are done; `ended` once the stage has ended too."""

    stage: int = 0
    rounds: int = 0
    ended: bool = False


@dataclass(frozen=True)
class Round:
    """What one round did, for the log: jobs and updates of the clients that were accepted, by client id,
    and the bytes each cost; first-time tokens; what was wrong with the others; rules that could not be
    kept to."""

    position: Position
    jobs: Sequence[Job]
    updates: Sequence[Update]
    identities: Sequence[Identity]
    bytes_down: Sequence[int] = ()
    bytes_up: Sequence[int] = ()
    faults: Sequence[Fault] = ()
    notes: Sequence[str] = ()


def federate(
    setting: Setting,
    plan: Sequence[Sequence[Sequence[Turn]]],
    method: Method,
    state: State,
    engine: Engine,
    after_round: Callable[[State, Round], None],
    after_stage: Callable[[State, Position], None],
    done: Position | None = None,
    optimizer: Optimizer | None = None,
    terms: RoundRules | None = None,
    journal: Journal | None = None,
) -> State:
    """Run what is left of a plan and return the final state.

    `plan` is [stage][round][slot] (see `schedule.plan`); `state` the method's start, or what stood
    after `done`. `after_round` and `after_stage` commit what they are given: a run that is cut off
    and goes on from there ends in the same bits, without asking again for replies that `journal` has.
    `optimizer` (none: FedAvg) works beside any method. Raises FcitError when a round has no quorum.
    """
    done, optimizer = done or Position(), optimizer or Optimizer()
    for number, stage in enumerate(setting.stages):
        if number < done.stage:
            continue
        resumed = number == done.stage
        if not (resumed and done.rounds):
            state = carry_memory(state, method.begin(state, stage))
            state = replace(state, optimizer=optimizer.begin(state.optimizer))
        if not (resumed and done.ended):
            for index in range(done.rounds if resumed else 0, len(plan[number])):
                turns = plan[number][index]
                state, report = take_round(
                    turns, method, state, engine, setting.epochs, optimizer, terms, journal
                )
                after_round(state, replace(report, position=Position(number, index + 1)))
            ended = replace(method.end(state, stage), optimizer=state.optimizer)
            _sound(ended, state, f"the end of stage {number + 1}")
            state = ended
        after_stage(state, Position(number, len(plan[number]), True))
    return state


def take_round(
    turns: Sequence[Turn],
    method: Method,
    state: State,
    engine: Engine,
    epochs: float,
    optimizer: Optimizer | None = None,
    terms: RoundRules | None = None,
    journal: Journal | None = None,
) -> tuple[State, Round]:
    """Identify, organise, send, train, judge, aggregate, step: one round of one stage."""
    optimizer, terms, journal = (
        optimizer or Optimizer(),
        terms or RoundRules(),
        journal or InMemory(),
    )
    place = turns[0].stage, turns[0].round
    journal.begin(*place)
    asked = method.to_identify(state, turns)
    identities, lost = _identify(asked, method.tokens(state), engine, journal)
    absent = {turn.client for turn in asked} - {one.client for one in identities}
    here = [turn for turn in turns if turn.client not in absent]
    _require(here, len(turns), lost, terms, place)
    state, jobs = hand_out(here, method, state, identities, epochs, optimizer)
    lost = lost + [
        Fault(turn.client, "unmatched", reason)
        for turn in here
        if (reason := method.reason_to_skip(state, turn))
    ]
    here = [job.turn for job in jobs]
    _require(here, len(turns), lost, terms, place)
    packed = _packed(jobs, terms, place)
    left = [job for job in packed if job.turn.client not in journal.replies()]
    came = engine.run(left) if left else ()
    replies, faults = gather(
        came, jobs, method, optimizer, journal, terms.wire, terms.outlier_factor
    )
    _require(replies, len(turns), [*lost, *faults], terms, place)
    updates = [reply.update for reply in replies]
    after, notes = method.aggregate(state, updates), list[str]()
    if terms.average == "product":
        after = exact(after, updates)
    if terms.robust != "mean":
        after, notes = robust.aggregate(after, updates, terms.robust, terms.byzantine_share)
    if terms.privacy.on:
        noise = terms.privacy.stream(terms.seed, "updates", *place)
        norms = [reply.norm for reply in replies]
        after = privacy.aggregate(state, after, updates, norms, terms.privacy, noise)
    took = {update.client for update in updates}
    took_part = [turn for turn in here if turn.client in took]
    after = server_step(optimizer, state, after, took_part, updates, method.trained_extras)
    _sound(after, state, _named(place))
    report = Round(
        Position(),
        [job for job in jobs if job.turn.client in took],
        updates,
        identities,
        [_bytes(job.received) for job in packed if job.turn.client in took],
        [reply.size for reply in replies],
        [*lost, *faults],
        notes,
    )
    return after, report


def _identify(
    asked: Sequence[Turn], stored: Tensor | None, engine: Engine, journal: Journal
) -> tuple[list[Identity], list[Fault]]:
    """The round's first-time tokens, from the clients or, where the journal has them, from there."""
    known = journal.identities()
    if known is not None:
        return known
    width = None if stored is None else stored.shape[-1]
    identities, faults = tokens(engine.identify(asked), asked, width)
    journal.keep_identities(identities, faults)
    return identities, faults


def _require(
    found: Sequence[object],
    asked: int,
    faults: Sequence[Fault],
    terms: RoundRules,
    place: tuple[int, int],
) -> None:
    """Raise FcitError when too few clients are left of a round."""
    quorum = min(terms.quorum or asked, asked)
    if len(found) < quorum:
        raise FcitError(
            f"{_named(place)}: {len(found)} of {asked} clients gave an update that can be used, and "
            f"{quorum} are needed: {'; '.join(map(named, faults))}. Mend it and go on with --resume, "
            "or without them with --set federation.min_clients=N"
        )


def hand_out(
    turns: Sequence[Turn],
    method: Method,
    state: State,
    identities: Sequence[Identity],
    epochs: float,
    optimizer: Optimizer,
) -> tuple[State, list[Job]]:
    """Organise and send: what a round's clients are given. A client that the method has a reason to
    skip gets no job."""
    state = carry_memory(state, method.organise(state, identities))
    placed = [turn for turn in turns if not method.reason_to_skip(state, turn)]
    return state, [Job(turn, _sent(method, optimizer, state, turn), epochs) for turn in placed]


def _sound(after: State, before: State, where: str) -> None:
    """Raise FcitError when numbers that are not finite would be committed."""
    for parts, old in zip(kinds(after), kinds(before), strict=True):
        if wrong := odd_number(parts, old):
            raise FcitError(
                f"{where}: {wrong} is no longer finite, though every reply was; remove the odd one from "
                "journal/ in the run's folder and go on with --resume, or begin anew with a lower "
                "federation.outlier_factor or another federation.robust"
            )


def _named(place: tuple[int, int]) -> str:
    return f"stage {place[0] + 1}, round {place[1] + 1}"


def _sent(method: Method, optimizer: Optimizer, state: State, turn: Turn) -> State:
    """What a client gets: the method's part and the optimizer's."""
    sent = method.send(state, turn)
    trained = groups(method.trains(sent), sent.projector is not None)
    return replace(sent, optimizer=optimizer.send(state.optimizer, trained))


def _packed(jobs: Sequence[Job], terms: RoundRules, place: tuple[int, int]) -> list[Job]:
    """The jobs in their form on the wire; what several clients get is packed once."""
    if terms.wire == "float32":
        return list(jobs)
    seen: dict[tuple[tuple[str, int], ...], State] = {}
    packed: list[Job] = []
    for job in jobs:
        # the names too: fresh subspaces are the same blank tensors
        key = tuple((name, id(tensor)) for name, tensor in flatten(job.received).items())
        if key not in seen:
            noise = torch_stream(terms.seed, "wire", "down", *place, len(seen))
            seen[key] = pack_state(job.received, terms.wire, noise)
        packed.append(replace(job, received=seen[key]))
    return packed


def _bytes(sent: State) -> int:
    return sum(map(state_bytes, kinds(sent)))
