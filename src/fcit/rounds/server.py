"""The stage and round loop: federate() is federated continual instruction tuning on one screen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from fcit.aggregation import privacy, robust
from fcit.aggregation.averaging import exact
from fcit.aggregation.packing import pack_message
from fcit.aggregation.privacy import Privacy
from fcit.aggregation.ranks import narrow
from fcit.methods import Method
from fcit.optimizers import Optimizer
from fcit.optimizers.base import carry_memory, groups, server_step
from fcit.rounds.federation import Federation
from fcit.rounds.hooks import checked, heirs
from fcit.rounds.journal import InMemory, Journal
from fcit.rounds.replies import GO_ON_WITHOUT, gather, named, tokens
from fcit.seeds import torch_stream
from fcit.types import Fault, FcitError, Identity, Job, Setting, Stage, State, Turn, Update
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
    token_width: int = field(kw_only=True)
    """How many numbers an identity token has; unused where the method has none."""
    dealt: bool = False
    """Whether the server dealt the clients' shares, so that no sample count is a client's word alone."""


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
    heirs: Mapping[str, str] = field(default_factory=dict[str, str])
    """For every adapter that has merged into another: the one that it is in now."""


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
            after = begun(run, state, stage)
            _require_finite(
                after, state, f"the beginning of stage {number + 1}"
            )  # an optimizer's part
            state = after
        if not resumed.ended:
            for index in range(resumed.rounds, len(rounds)):
                state, report = take_round(run, state, rounds[index], engine, journal)
                yield state, Position(number, index + 1), report
            state = ended(run, state, stage)
        yield state, Position(number, len(rounds), True), None


def begun(run: FederatedRun, state: State, stage: Stage) -> State:
    """The state with which a stage begins."""
    after = carry_memory(state, checked(run.method, "begin", run.method.begin(state, stage), state))
    return replace(after, optimizer=run.optimizer.begin(after.optimizer))


def ended(run: FederatedRun, state: State, stage: Stage) -> State:
    """The state with which a stage ends, after its last round."""
    return carry_memory(state, checked(run.method, "end", run.method.end(state, stage), state))


def take_round(
    run: FederatedRun,
    state: State,
    turns: Sequence[Turn],
    engine: Engine,
    journal: Journal | None = None,
) -> tuple[State, Round]:
    """Identify, organise, send, train, judge, aggregate, step: one round of one stage."""
    method, rules, journal = run.method, run.federation, journal or InMemory()
    stage, number = key = turns[0].stage, turns[0].round
    where, start = f"stage {stage + 1}, round {number + 1}", state
    journal.begin(*key)
    asked = method.to_identify(state, turns)
    identities, lost = _identify(run, asked, method.tokens(state), engine, journal)

    def require_enough(left: Sequence[object], faults: Sequence[Fault]) -> None:
        quorum = min(rules.min_clients or len(turns), len(turns))
        if len(left) < quorum:
            journal.keep_identities(identities, [])  # a resumed round asks the others again
            raise FcitError(
                f"{where}: {len(left)} of {len(turns)} clients gave a valid update, but {quorum} are "
                f"needed: {'; '.join(map(named, faults))}. Fix the cause and continue the run, "
                f"{GO_ON_WITHOUT}"
            )

    silent = {turn.client for turn in asked} - {identity.client for identity in identities}
    present = [turn for turn in turns if turn.client not in silent]
    require_enough(present, lost)
    state, jobs = hand_out(run, state, present, identities)
    sizes = {each.client: float(each.token.abs().max()) * each.samples for each in identities}
    _require_finite(state, start, where, sizes, "tokens")
    lost = lost + [
        Fault(turn.client, "unmatched", reason)
        for turn in present
        if (reason := method.reason_to_skip(state, turn))
    ]
    require_enough(jobs, lost)
    expected = {job.turn.client: method.expects(job.received) for job in jobs}
    known = dict(journal.kept)
    for client, reply in list(known.items()):
        if reply.update.adapters.keys() != expected.get(client, State()).adapters.keys():
            journal.forget(client)  # others have joined since: it belongs to another subspace now
            del known[client]
    packed = _packed(run, jobs, key)
    left = [job for job in packed if job.turn.client not in known]
    incoming = engine.run(left) if left else ()
    factor = rules.outlier_factor
    replies, faults = gather(
        incoming, jobs, known, method, run.optimizer, journal, rules.wire, factor, run.dealt
    )
    require_enough(replies, [*lost, *faults])
    updates = [reply.update for reply in replies]
    norms = {reply.update.client: reply.norm for reply in replies}
    after = checked(method, "aggregate", method.aggregate(state, updates))
    notes, averaged = list[str](), updates
    if rules.average == "product":
        after = exact(after, updates)
    if rules.robust != "mean":
        after, notes = robust.aggregate(after, updates, rules.robust, rules.byzantine_share)
    if run.privacy.on:
        averaged = list(expected.values())
        noise, sizes = run.privacy.stream(run.seed, "updates", *key), list(norms.values())
        after = privacy.aggregate(state, after, averaged, updates, sizes, run.privacy, noise)
    jobs = [job for job in jobs if job.turn.client in norms]
    trained, extras = [job.turn for job in jobs], method.trained_extras
    after = server_step(run.optimizer, state, after, trained, updates, extras, averaged)
    _require_finite(after, state, where, norms)
    final = ended(run, after, run.setting.stages[stage]) if turns[0].last else after
    sent = [kinds(job.received) for job in packed if job.turn.client in norms]
    down = [sum(map(state_bytes, parts)) for parts in sent]
    up = [reply.size for reply in replies]
    merged = heirs(method, final)
    return after, Round(jobs, updates, identities, down, up, [*lost, *faults], notes, merged)


def _identify(
    run: FederatedRun,
    asked: Sequence[Turn],
    stored: Tensor | None,
    engine: Engine,
    journal: Journal,
) -> tuple[list[Identity], list[Fault]]:
    """The round's first-time tokens, from the journal or else from the clients."""
    known, lost = journal.known
    heard = {identity.client for identity in known} | {fault.client for fault in lost}
    missing = [turn for turn in asked if turn.client not in heard]
    factor, width = run.federation.outlier_factor, run.token_width
    widths = [len(identity.token) for identity in known]
    widths += [] if stored is None else [stored.shape[1]]
    if others := [str(each) for each in widths if each != width]:
        raise FcitError(
            f"model.identity: its tokens have {width} numbers, and those that this run has have "
            f"{others[0]}; name the encoder that the run began with"
        )
    incoming = engine.identify(missing)
    identities, faults = tokens(
        incoming, missing, known, stored, factor, run.method, width, run.dealt
    )
    if run.privacy.on:
        identities = [privacy.bound_token(identity, run.privacy) for identity in identities]
    faults = [*lost, *faults]
    journal.keep_identities(identities, faults)
    return identities, faults


def hand_out(
    run: FederatedRun, state: State, turns: Sequence[Turn], identities: Sequence[Identity]
) -> tuple[State, list[Job]]:
    """Organise and send: what a round's clients are given. A client that the method has a reason to
    skip gets no job."""
    organised = checked(run.method, "organise", run.method.organise(state, identities))
    state = carry_memory(state, organised)
    jobs: list[Job] = []
    for turn in turns:
        if not run.method.reason_to_skip(state, turn):
            sent = run.method.send(state, turn)
            trained = run.method.trains(sent)
            if rank := run.federation.rank_of(turn.client):
                sent = narrow(sent, trained, rank)
            names = groups(trained, sent.projector is not None)
            sent = replace(sent, optimizer=run.optimizer.send(state.optimizer, names))
            jobs.append(Job(turn, sent, run.setting.epochs))
    return state, jobs


def _require_finite(
    after: State,
    before: State,
    where: str,
    sizes: Mapping[int, float] | None = None,
    file: str = "",
) -> None:
    """Raise FcitError when numbers that are not finite would be committed. sizes: how large the
    contributions of the clients are; file: of the journal, "" where each client has its own."""
    for parts, old in zip(kinds(after), kinds(before), strict=True):
        if tensor := find_nonfinite(parts, old):
            fix = "Start again with a lower federation.outlier_factor or another federation.robust"
            if sizes:
                client = max(sizes, key=sizes.__getitem__)
                fix = (
                    f"Client {client} sent the largest numbers: repair it, delete "
                    f"journal/{file or client}.safetensors in the run's folder and continue the run. "
                    f"Or {fix[0].lower()}{fix[1:]}"
                )
            raise FcitError(f"{where}: the aggregate is not finite ({tensor}). {fix}")


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
            seen[content] = pack_message(job.received, wire, noise, State())
        packed.append(replace(job, received=seen[content]))
    return packed
