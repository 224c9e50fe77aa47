"""The mathematics of the federated optimizers, on tensors small enough to follow by hand."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fcit.aggregation.averaging import Average, exact
from fcit.benchmark.schedule import plan
from fcit.engines import wire
from fcit.methods.base import Method
from fcit.methods.ewc import Ewc
from fcit.methods.finetune import Finetune
from fcit.methods.l2p import L2p
from fcit.methods.moelora import Moelora
from fcit.optimizers import Optimizer, find, names
from fcit.optimizers.base import carry_memory, groups, server_step
from fcit.optimizers.fedadagrad import Fedadagrad
from fcit.optimizers.fedadam import Fedadam
from fcit.optimizers.fedavgm import Fedavgm
from fcit.optimizers.fedprox import Fedprox
from fcit.optimizers.fedyogi import Fedyogi
from fcit.optimizers.scaffold import SAMPLES, VARIATE, Scaffold
from fcit.rounds.federation import Federation
from fcit.rounds.runfolder import RunFolder
from fcit.rounds.server import FederatedRun, Position, ended, federate
from fcit.types import FcitError, Identity, Job, Setting, Stage, State, Task, Turn, Update, Weights
from rounds.test_server import BLANK, PLAN, SETTING, Ledger, Scripted, Stepping, same

ALL = [find(name)() for name in names()]
TASK = Task("red", ("red",))
LORA = {
    "base_model.model.layers.0.up.lora_A.weight": torch.ones(2, 3),
    "base_model.model.layers.0.up.lora_B.weight": torch.zeros(5, 2),
}


@dataclass
class Hills:
    """Clients that descend h_i (w - a_i)^2 / 2 by plain SGD; what they keep is kept as an engine does."""

    optimizer: Optimizer
    steps: int = 5
    rate: float = 0.1
    samples: tuple[int, ...] = (10, 10, 10, 10)
    memory: dict[int, Weights] = field(default_factory=dict)
    replies: list[Update] = field(default_factory=list)

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity]:
        return iter(())

    def run(self, jobs: Sequence[Job]) -> Iterator[Update]:
        for job in jobs:
            client = job.turn.client
            kept = self.memory.get(client, {})
            w = job.received.adapters["0"]["a"].clone().requires_grad_(True)
            trained = {groups(["0"], True)[0]: [w]}
            local = self.optimizer.local(job.turn, trained, job.received.optimizer, kept)
            for _ in range(self.steps):
                w.grad = slope(client, w.detach())
                local.correct()
                with torch.no_grad():
                    w -= self.rate * w.grad
            sent, self.memory[client] = local.report()
            adapters = {"0": {"a": w.detach().clone()}}
            update = Update(client, self.samples[client], adapters, {}, {"loss": 0.0}, sent)
            self.replies.append(update)
            yield update


def slope(client: int, w: torch.Tensor) -> torch.Tensor:
    return (client + 1) * (w - torch.tensor([1.0, -2.0]) * client)


def descend(
    hills: Hills, rounds: int, per_round: int, stages: int = 1
) -> tuple[State, list[State]]:
    setting = Setting("hills", (Stage((TASK,)),) * stages, len(hills.samples), per_round, rounds)
    seen: list[State] = []
    start = Method(projector="frozen").start({"a": torch.zeros(2)}, {})
    run = FederatedRun(
        setting, plan(setting, seed=0), Method(projector="frozen"), hills.optimizer, token_width=0
    )
    last = start
    for last, _, report in federate(run, start, hills):
        seen += [last] if report else []
    return last, seen


# -- names and hyper-parameters ----------------------------------------------------------------------


def test_a_files_name_is_its_optimizers_name() -> None:
    adaptive = ["fedadagrad", "fedadam", "fedyogi"]
    assert names() == [*adaptive[:2], "fedavg", "fedavgm", "fedprox", "fedyogi", "scaffold"]
    assert all(type(one).__name__.lower() == name for one, name in zip(ALL, names(), strict=True))
    with pytest.raises(FcitError, match="fedsgd"):
        find("fedsgd")


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (Fedprox, {"mu": -0.1}, "mu"),
        (Scaffold, {"lr": 0.0}, "lr"),
        (Fedavgm, {"momentum": 1.0}, "momentum"),
        (Fedadam, {"beta2": 1.5}, "beta2"),
        (Fedyogi, {"tau": 0.0}, "tau"),
        (Fedadagrad, {"beta1": -1.0}, "beta1"),
    ],
)
def test_a_hyper_parameter_without_meaning_is_named(kind: type, options: dict, named: str) -> None:
    with pytest.raises(FcitError, match=rf"federation\.optimizer_options\.{named}: "):
        kind(**options)


# -- the server's step -------------------------------------------------------------------------------


def steps(optimizer: Optimizer, deltas: Sequence[float], x: float = 1.0) -> list[float]:
    """Where one entry goes when the average is so far away from it in each round."""
    value, kept, found = torch.tensor([x], dtype=torch.float64), {}, []
    for delta in deltas:
        value, kept = optimizer.move(value, value + delta, kept)
        found.append(value.item())
    return found


def test_fedadams_first_two_steps() -> None:
    """eta 0.5, beta1 0.9, beta2 0.8, tau 0.1; Delta is 0.2, then -0.1; v starts at tau^2."""
    found = steps(Fedadam(lr=0.5, beta1=0.9, beta2=0.8, tau=0.1), [0.2, -0.1])
    m1, v1 = 0.02, 0.8 * 0.01 + 0.2 * 0.04  # 0.016
    first = 1.0 + 0.5 * m1 / (sqrt(v1) + 0.1)
    m2, v2 = 0.9 * m1 - 0.01, 0.8 * v1 + 0.2 * 0.01  # 0.008, 0.0148
    second = first + 0.5 * m2 / (sqrt(v2) + 0.1)
    assert found == pytest.approx([first, second], abs=1e-12)


def test_fedyogis_first_two_steps() -> None:
    found = steps(Fedyogi(lr=0.5, beta1=0.9, beta2=0.8, tau=0.1), [0.2, -0.1])
    m1, v1 = 0.02, 0.01 + 0.2 * 0.04  # 0.01 is below 0.04, so v grows: 0.018
    first = 1.0 + 0.5 * m1 / (sqrt(v1) + 0.1)
    m2, v2 = 0.9 * m1 - 0.01, v1 - 0.2 * 0.01  # 0.018 is above 0.01, so v falls: 0.016
    assert found == pytest.approx([first, first + 0.5 * m2 / (sqrt(v2) + 0.1)], abs=1e-12)


def test_fedadagrads_first_two_steps() -> None:
    found = steps(Fedadagrad(lr=0.5, tau=0.1), [0.2, -0.1])
    first = 1.0 + 0.5 * 0.2 / (sqrt(0.01 + 0.04) + 0.1)
    second = first - 0.5 * 0.1 / (sqrt(0.01 + 0.04 + 0.01) + 0.1)
    assert found == pytest.approx([first, second], abs=1e-12)


def test_fedavgms_momentum_gathers() -> None:
    found = steps(Fedavgm(momentum=0.5, lr=0.1), [1.0, 1.0, 0.0])
    assert found == pytest.approx([1.1, 1.1 + 0.15, 1.1 + 0.15 + 0.075], abs=1e-12)


@pytest.mark.parametrize(
    "optimizer", [Fedavgm(momentum=0.0, lr=1.0), Scaffold(lr=1.0), Fedprox(mu=0.3)]
)
def test_a_server_that_does_nothing_more_is_fedavg_to_the_bit(optimizer: Optimizer) -> None:
    noise = torch.Generator().manual_seed(0)
    kept: Weights = {}
    for size in (1e-6, 1.0, 1e6):
        x, mean = (torch.randn(999, generator=noise) * size for _ in range(2))
        value, kept = optimizer.move(x, mean * 3, kept)
        assert value.equal(mean * 3)


# -- which weights step ------------------------------------------------------------------------------


def test_what_was_trained_steps_and_all_else_stays() -> None:
    old = State(
        {"0": {"a": torch.zeros(2)}, "1": {"a": torch.ones(2)}},
        {"projector": {"w": torch.zeros(2)}, "fisher": {"w": torch.zeros(2)}, "quiet": {}},
    )
    came = {"a": torch.ones(2), "new": torch.ones(1), "n": torch.tensor(3)}
    extras = {"projector": {"w": torch.ones(2)}, "fisher": {"w": torch.ones(2)}}
    after = State(old.adapters | {"0": came, "2": came}, old.extras | extras)
    update = Update(0, 1, {"0": came, "2": came}, extras, {})
    half = Fedavgm(momentum=0.0, lr=0.5)
    new = server_step(half, old, after, [Turn(0, TASK, 0, 0)], [update], ["projector"])
    assert new.adapters["0"]["a"].tolist() == [0.5, 0.5]
    assert new.adapters["0"]["new"] is came["new"]  # it was not there before
    assert new.adapters["1"] is old.adapters["1"]
    assert new.adapters["2"] is came
    assert new.extras["projector"]["w"].tolist() == [0.5, 0.5]
    assert new.extras["fisher"] is extras["fisher"]  # not learnt: a statistic
    assert {group: list(slots) for group, slots in new.optimizer.items()} == {
        "adapters.0": ["v/a"],
        "extras.projector": ["v/w"],
    }


@pytest.mark.parametrize(("method", "own"), [(Moelora(experts=2), "router"), (L2p(), "pool")])
def test_what_a_method_trains_beside_adapters_makes_the_servers_step_too(
    method: Method, own: str
) -> None:
    state = method.begin(method.start(LORA, {"p": torch.zeros(1)}), SETTING.stages[0])
    sent = method.send(state, Turn(0, TASK, 0, 0))
    trained = {
        name: {key: value + 1 for key, value in sent.extras[name].items()}
        for name in ("projector", own)
    }
    update = Update(0, 1, {}, trained, {})
    after = method.aggregate(state, [update])
    turns = [Turn(0, TASK, 0, 0)]
    new = server_step(Fedavgm(0.0, 0.5), state, after, turns, [update], method.trained_extras)
    for name in ("projector", own):
        assert f"extras.{name}" in new.optimizer
        for key, old in state.extras[name].items():
            torch.testing.assert_close(new.extras[name][key], old + 0.5)


def test_what_ewc_measures_is_no_weight_and_is_gone_at_the_stages_end() -> None:
    method, turn = Ewc(), Turn(0, TASK, 0, 0, last=True)
    state = method.begin(method.start(LORA, {"p": torch.zeros(1)}), SETTING.stages[0])
    for _ in range(2):  # in the second stage there is an older measurement
        measured = {"fisher-measured": {key: value + 3 for key, value in LORA.items()}}
        update = Update(0, 1, dict(state.adapters), measured, {})
        after = method.aggregate(state, [update])
        new = server_step(Fedadam(), state, after, [turn], [update], method.trained_extras)
        assert new.extras["fisher-measured"] is after.extras["fisher-measured"]
        state = replace(method.end(new, SETTING.stages[0]), optimizer=new.optimizer)
        assert set(state.extras) == {"blank", "projector", "fisher", "fisher-centre"}
        assert set(state.optimizer) == {"adapters.0"}


def test_a_subspace_nobody_trained_keeps_its_momentum_and_a_new_one_has_none() -> None:
    v = {"v/a": torch.ones(2)}
    old = State(
        {"0": {"a": torch.zeros(2)}, "1": {"a": torch.ones(2)}, "2": {"a": torch.ones(2)}},
        {"projector": {"w": torch.ones(1)}},
        {f"adapters.{name}": v for name in "012"} | {"extras.projector": v, "variate.x": v},
    )
    adapters = {"0": {"a": torch.zeros(2)}, "1": {"a": torch.zeros(2)}, "3": {"a": torch.zeros(2)}}
    new = carry_memory(old, State(adapters, old.extras))
    assert set(new.optimizer) == {"adapters.0", "extras.projector", "variate.x"}


def test_the_name_of_several_adapters_does_not_depend_on_their_order() -> None:
    """A wire sorts names: "10" comes before "2" there."""
    names = [str(number) for number in range(12)]
    assert groups(names, True) == groups(sorted(names), True)
    assert groups(names[:3], False) == ("adapters.0+1+2", "projector.0+1+2")
    many = groups([str(number) for number in range(100)], True)[0]
    assert len(many) < 100
    assert many != groups([str(number) for number in range(1, 101)], True)[0]


def test_what_the_end_of_a_stage_replaces_begins_anew() -> None:
    """A method's `end` may put another adapter under the same name."""

    class Back(Finetune):
        def end(self, state: State, stage: Stage) -> State:
            return replace(state, adapters={"0": {"a": torch.zeros(2)}})

    v = {"v/a": torch.ones(2)}
    state = State({"0": {"a": torch.ones(2)}}, {}, {"adapters.0": v, "variate.x": v})
    run = SimpleNamespace(method=Back())
    assert set(ended(run, state, SETTING.stages[0]).optimizer) == {"variate.x"}


# -- FedProx -----------------------------------------------------------------------------------------


def test_the_proximal_terms_gradient_is_autograds() -> None:
    noise = torch.Generator().manual_seed(1)
    start = [torch.randn(3, 4, generator=noise), torch.randn(2, generator=noise)]
    weights = [one.clone().requires_grad_(True) for one in start]
    local = Fedprox(mu=0.3).local(Turn(0, TASK, 0, 0), {"x": weights[:1], "y": weights[1:]}, {}, {})
    with torch.no_grad():
        for one in weights:
            one += torch.randn(one.shape, generator=noise)
    term = sum((0.3 / 2 * (w - s).square().sum() for w, s in zip(weights, start, strict=True)))
    wanted = torch.autograd.grad(term, weights)  # type: ignore[arg-type]
    for one in weights:
        one.grad = torch.ones_like(one)
    local.correct()
    for one, want in zip(weights, wanted, strict=True):
        torch.testing.assert_close(one.grad, want + 1)
    assert local.report() == ({}, {})


def test_fedprox_holds_clients_near_what_they_were_sent_and_mu_0_is_fedavg() -> None:
    plain, zero, held = (
        descend(Hills(one), 1, 4)[0] for one in (Optimizer(), Fedprox(0), Fedprox(5))
    )
    assert same(plain, zero)
    assert held.adapters["0"]["a"].norm() < 0.5 * plain.adapters["0"]["a"].norm()


# -- SCAFFOLD ----------------------------------------------------------------------------------------


def variates(hills: Hills) -> dict[int, torch.Tensor]:
    return {client: one for client, kept in hills.memory.items() for one in kept.values()}


def test_c_is_the_mean_of_the_clients_and_the_corrections_sum_to_zero() -> None:
    hills = Hills(Scaffold(), samples=(10, 30, 5, 55))
    _, seen = descend(hills, rounds=6, per_round=2)
    c = seen[-1].optimizer[f"{VARIATE}adapters.0"]["0000"]
    own = variates(hills)
    counts = {client: hills.samples[client] for client in own}
    known = seen[-1].optimizer[f"{SAMPLES}adapters.0"]
    assert {key: int(one) for key, one in known.items()} == {
        f"{client}/red": count for client, count in counts.items()
    }
    total = sum(counts.values())
    torch.testing.assert_close(c, sum(counts[i] / total * own[i] for i in own))
    corrections = torch.stack([(c - own[i]) * counts[i] for i in own])
    torch.testing.assert_close(corrections.sum(0), torch.zeros(2), atol=1e-3, rtol=0)
    assert corrections.abs().max() > 1


def test_a_new_c_i_is_the_papers_option_two_under_sgd() -> None:
    """c_i^+ = c_i - c + (x - y_i) / (K eta)."""
    hills = Hills(Scaffold())
    _, seen = descend(hills, rounds=1, per_round=4)
    state, before = seen[0], variates(hills)
    x, c = state.adapters["0"]["a"], state.optimizer[f"{VARIATE}adapters.0"]["0000"]
    jobs = [
        Job(Turn(i, TASK, 0, 1), replace(state, optimizer={"adapters.0": {"0000": c}}))
        for i in range(4)
    ]
    for update in hills.run(jobs):
        y = update.adapters["0"]["a"]
        want = before[update.client] - c + (x - y) / (hills.steps * hills.rate)
        torch.testing.assert_close(variates(hills)[update.client], want)
        change = update.optimizer["adapters.0"]["0000"]
        torch.testing.assert_close(change, want - before[update.client])


def test_it_finds_the_optimum_that_fedavg_drifts_away_from() -> None:
    h = torch.tensor([1.0, 2.0, 3.0, 4.0])
    best = (h * torch.arange(4)).sum() / h.sum() * torch.tensor([1.0, -2.0])
    plain, controlled = (
        descend(Hills(one), rounds=60, per_round=4)[0].adapters["0"]["a"]
        for one in (Optimizer(), Scaffold())
    )
    assert (plain - best).norm() > 0.1
    torch.testing.assert_close(controlled, best, atol=1e-3, rtol=1e-3)


def test_a_client_new_to_a_group_is_not_corrected() -> None:
    weight = torch.zeros(2, requires_grad=True)
    received = {"adapters.0": {"0000": torch.tensor([3.0, 4.0])}}
    local = Scaffold().local(Turn(7, TASK, 0, 1), {"adapters.0": [weight]}, received, {})
    weight.grad = torch.tensor([1.0, 1.0])
    local.correct()
    assert weight.grad.tolist() == [1.0, 1.0]
    sent, kept = local.report()
    assert sent["adapters.0"]["0000"].tolist() == [-2.0, -3.0]
    assert kept["0/red/adapters.0/0000"].tolist() == [1.0, 1.0]


def test_a_new_stage_starts_anew_and_another_task_has_its_own() -> None:
    hills = Hills(Scaffold())
    _, seen = descend(hills, rounds=1, per_round=4, stages=2)
    first, second = (state.optimizer[f"{SAMPLES}adapters.0"] for state in seen)
    assert first.keys() == second.keys() == {f"{client}/red" for client in range(4)}
    assert all(key.startswith("1/red/") for key in hills.memory[0])
    kept = {"1/blue/g/0000": torch.ones(1), "0/red/g/0000": torch.ones(1)}
    local = Scaffold().local(Turn(0, TASK, 1, 0), {}, {}, kept)
    assert list(local.report()[1]) == ["1/blue/g/0000"]


def test_what_it_keeps_crosses_wires_and_run_folders_unchanged(tmp_path: Path) -> None:
    """Workers get jobs and memories as frames; a resumed run reads both from its folder."""
    whole = Hills(Scaffold())
    final, _ = descend(whole, rounds=4, per_round=2, stages=2)
    setting = Setting("hills", (Stage((TASK,)),) * 2, 4, 2, 4)
    method, folder = Method(projector="frozen"), RunFolder(tmp_path)
    hills, state, done = Wired(Scaffold()), method.start({"a": torch.zeros(2)}, {}), None
    for _ in range(2 * 4):
        run = FederatedRun(setting, plan(setting, seed=0), method, hills.optimizer, token_width=0)
        commits = federate(run, state, hills, done)
        after, position = next((after, at) for after, at, report in commits if report)
        folder.commit(after, position, hills.memory)
        hills = Wired(Scaffold())
        (state, hills.memory), done = folder.state(), folder.position()
    assert done == Position(1, 4)
    assert same(state, final)
    assert same(State(_named(hills.memory)), State(_named(whole.memory)))


@dataclass
class Wired(Hills):
    """The same, with every job and reply made bytes and read again."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Update]:
        for job in jobs:
            client = job.turn.client
            job, memory = wire.unpack_job(
                *through(*wire.pack_job(job, self.memory.get(client, {})))
            )
            self.memory[client] = memory
            (update,) = super().run([job])
            reply = wire.pack_update(update, self.memory[client])
            update = wire.unpack_update(*through(*reply))
            self.memory[client] = update.memory or {}
            yield update


def through(header: wire.Header, weights: Weights) -> tuple[wire.Header, Weights]:
    stream = io.BytesIO()
    wire.write_frame(stream, header, weights)
    stream.seek(0)
    frame = wire.read_frame(stream)
    assert frame
    return frame


def _named(memory: dict[int, Weights]) -> dict[str, Weights]:
    return {str(client): memory[client] for client in sorted(memory)}


# -- in the loop -------------------------------------------------------------------------------------


def go(
    optimizer: Optimizer, average: Average = "factors", place: int | None = None
) -> tuple[Ledger, State]:
    """Scripted clients under an optimizer, from the beginning or from one of the commits."""
    ledger, method = Ledger(), Stepping()
    state, done = method.start(BLANK, {"w": torch.zeros(7)}), None
    if place is not None:
        whole, _ = go(optimizer, average)
        done, state = whole.commits[place]
    run = FederatedRun(SETTING, PLAN, method, optimizer, Federation(average=average), token_width=2)
    return ledger, ledger.follow(run, state, Scripted(place or 0), done)


@pytest.mark.parametrize("optimizer", ALL, ids=names())
def test_every_optimizer_goes_on_from_any_commit_in_the_same_bits(optimizer: Optimizer) -> None:
    ledger, final = go(optimizer)
    for place in range(len(ledger.commits)):
        assert same(go(optimizer, place=place)[1], final)
    assert all(
        torch.isfinite(one).all() for part in final.adapters.values() for one in part.values()
    )


def test_methods_never_see_the_optimizers_memory_nor_do_clients() -> None:
    @dataclass(frozen=True)
    class Forgetful(Stepping):
        def send(self, state: State, turn: Turn) -> State:
            return state

        def expects(self, received: State) -> State:
            extras = {
                name: {key: value.float() for key, value in weights.items()}
                for name, weights in received.extras.items()
            }
            return State(received.adapters, extras)

    ledger, engine = Ledger(), Scripted()
    method = Forgetful()
    state = method.start(BLANK, {"w": torch.zeros(7)})
    last = ledger.follow(
        FederatedRun(SETTING, PLAN, method, Fedadam(), token_width=2), state, engine
    )
    assert not any(job.received.optimizer for job in engine.jobs)
    assert {"adapters.0", "extras.projector"} <= last.optimizer.keys()


def test_the_optimizer_acts_on_the_exact_average_too() -> None:
    block = {"x.lora_A.weight": torch.randn(2, 5), "x.lora_B.weight": torch.zeros(4, 2)}
    update = [Update(i, 1, {"0": {k: v + 1 + i for k, v in block.items()}}, {}, {}) for i in (0, 1)]
    method = Method(projector="frozen")
    state = method.begin(method.start(block, {}), SETTING.stages[0])
    merged = exact(method.aggregate(state, update), update)
    turns = [Turn(0, TASK, 0, 0), Turn(1, TASK, 0, 0)]
    new = server_step(Fedavgm(0.5, 0.5), state, merged, turns, update, ())
    for key, old in block.items():
        torch.testing.assert_close(new.adapters["0"][key], (old + merged.adapters["0"][key]) / 2)
