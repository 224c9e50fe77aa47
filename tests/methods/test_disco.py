"""DKO and SSA (Guo et al. 2025): who shares a subspace, and what a test instruction opens."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from fcit.methods.base import Query
from fcit.methods.disco import Disco
from fcit.types import FcitError, Identity, Stage, State, Task, Turn, Update

BLANK = {"a": torch.ones(2, 3)}
TASK = Task("t", ("t",))


def at(degrees: float, length: float = 1.0) -> torch.Tensor:
    angle = math.radians(degrees)
    return torch.tensor([length * math.cos(angle), length * math.sin(angle)])


def meet(method: Disco, state: State, *clients: tuple[int, float, int]) -> State:
    return method.organise(
        state, [Identity(client, "t", at(angle), count) for client, angle, count in clients]
    )


def homes(state: State) -> dict[str, int]:
    return {key: int(value) for key, value in state.extras["members"].items()}


def fresh(method: Disco) -> State:
    return method.begin(method.start(BLANK, {"w": torch.zeros(1)}), Stage((TASK,)))


def test_like_tokens_share_a_subspace_and_unlike_ones_open_their_own() -> None:
    method = Disco(tau=math.cos(math.radians(20)))
    state = meet(method, fresh(method), (4, 0, 10), (2, 90, 10), (7, 5, 30))
    assert homes(state) == {"2/t": 0, "4/t": 1, "7/t": 1}  # in the order of smallest client ids
    assert list(state.adapters) == ["0", "1"]
    assert all(torch.equal(one["a"], BLANK["a"]) for one in state.adapters.values())


def test_the_token_is_the_mean_weighted_by_samples_over_all_rounds() -> None:
    method = Disco(tau=0.5)
    state = meet(method, fresh(method), (0, 0, 300), (1, 20, 1))
    state = meet(method, state, (2, 10, 700))
    want = (300 * at(0) + 1 * at(20) + 700 * at(10)) / 1001
    torch.testing.assert_close(state.extras["identity"]["tokens"][0], want)
    assert state.extras["identity"]["samples"].tolist() == [1001]
    assert state.extras["identity"]["samples"].dtype == torch.int64


def test_groups_are_the_connected_components_also_of_many_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against a search through the graph of likeness, with blocks that do not divide the clients."""
    monkeypatch.setattr("fcit.methods.disco.BLOCK", 16)
    method, noise = Disco(tau=0.93), torch.Generator().manual_seed(0)
    tokens = torch.randn(100, 4, generator=noise)
    alike = torch.nn.functional.cosine_similarity(tokens[:, None], tokens[None], dim=-1) >= 0.93
    left, want = set(range(100)), []
    while left:
        reached = {min(left)}
        while grown := set(alike[list(reached)].any(dim=0).nonzero()[:, 0].tolist()) - reached:
            reached |= grown
        want.append(sorted(reached))
        left -= reached
    assert 10 < len(want) < 90 and max(map(len, want)) > 3
    identities = [Identity(k, "t", token, 1) for k, token in enumerate(tokens)]
    found = method._components(identities)
    assert [sorted(each.client for each in group) for group in found] == want


def test_within_a_group_clients_come_as_their_groups_were_joined() -> None:
    """The order decides the bits of the subspace's mean."""
    method = Disco(tau=math.cos(math.radians(20)))
    angles = (0, 90, 30, 60, 15, 100)  # client 4 joins the groups of 0 and 2, then 5 that of 1
    identities = [Identity(k, "t", at(angle), 1) for k, angle in enumerate(angles)]
    found = method._components(identities)
    assert [[each.client for each in group] for group in found] == [[0, 2, 4], [1, 5], [3]]


def test_a_chain_of_likeness_is_one_group() -> None:
    method = Disco(tau=math.cos(math.radians(20)))
    state = meet(method, fresh(method), (0, 0, 1), (1, 30, 1), (2, 15, 1))
    assert set(homes(state).values()) == {0}


def test_the_order_of_arrival_changes_nothing() -> None:
    method = Disco(tau=math.cos(math.radians(20)))
    clients = [(3, 0, 5), (1, 50, 7), (2, 15, 2), (0, 65, 9), (4, 160, 1)]
    want = meet(method, fresh(method), *clients)
    for order in itertools.permutations(clients):
        got = meet(method, fresh(method), *order)
        assert homes(got) == homes(want)
        assert torch.equal(got.extras["identity"]["tokens"], want.extras["identity"]["tokens"])


def test_tau_is_inclusive_and_the_best_match_wins() -> None:
    method = Disco(tau=1.0)
    state = meet(method, fresh(method), (0, 0, 1))
    assert homes(meet(method, state, (1, 0, 1)))["1/t"] == 0
    method = Disco(tau=0.5)
    state = meet(Disco(tau=0.9), fresh(method), (0, 0, 1), (1, 50, 1))
    assert homes(meet(method, state, (2, 40, 1)))["2/t"] == 1


def test_a_client_is_asked_once_per_task_and_counts_once() -> None:
    method = Disco()
    turns = [Turn(0, TASK, 0, 0), Turn(1, TASK, 0, 0)]
    state = fresh(method)
    assert method.to_identify(state, turns) == turns
    state = meet(method, state, (0, 0, 10))
    assert method.to_identify(state, turns) == turns[1:]
    other = Turn(0, Task("u", ("u",)), 1, 0)
    assert method.to_identify(state, [other]) == [other]


def test_past_the_cap_a_client_can_be_skipped_and_no_subspace_is_reused() -> None:
    method = Disco(max_subspaces=2, at_limit="skip")
    state = meet(method, fresh(method), (0, 0, 1))
    turns = [Turn(client, TASK, 0, 0) for client in range(4)]
    after = meet(method, state, (1, 90, 1), (2, 180, 1), (3, 5, 1))
    assert method.to_identify(after, turns) == [turns[2]]
    assert sorted(after.adapters) == ["0", "1"]
    assert after.extras["identity"]["samples"].tolist() == [2, 1]


def test_at_the_cap_unmatched_clients_join_the_most_similar_subspace() -> None:
    method = Disco(max_subspaces=2)
    state = meet(method, fresh(method), (0, 0, 1))
    after = meet(method, state, (1, 90, 1), (2, 150, 1), (3, 5, 1), (4, -40, 1))
    assert homes(after) == {"0/t": 0, "1/t": 1, "2/t": 1, "3/t": 0, "4/t": 0}
    assert after.extras["identity"]["samples"].tolist() == [3, 2]
    assert sorted(after.adapters) == ["0", "1"]
    first = meet(Disco(max_subspaces=1), fresh(method), (0, 0, 1), (1, 90, 1), (2, 180, 1))
    assert set(homes(first).values()) == {0}  # all in one round, with one place
    assert method.asked_per == "task"
    assert Disco(max_subspaces=2, at_limit="skip").asked_per == "round"
    assert Disco(at_limit="skip").asked_per == "task"


def trained(method: Disco, state: State) -> State:
    update = Update(0, 1, {"0": BLANK}, {"projector": {"w": torch.zeros(1)}}, {})
    return method.aggregate(state, [update])


def test_as_the_reference_subspaces_open_in_a_stages_first_round_only() -> None:
    method, stage = Disco(as_reference=True), Stage((TASK,))
    state = meet(method, fresh(method), (0, 0, 1), (1, 90, 1))
    assert homes(state) == {"0/t": 0, "1/t": 1}
    state = meet(method, trained(method, state), (2, 200, 1))  # the second round: however unlike
    assert homes(state)["2/t"] == 1 and len(state.adapters) == 2
    state = meet(method, method.begin(trained(method, state), stage), (3, 230, 1))
    assert homes(state)["3/t"] == 2
    assert "opening" not in trained(method, state).extras
    usual = meet(Disco(), trained(Disco(), meet(Disco(), fresh(Disco()), (0, 0, 1))), (2, 200, 1))
    assert homes(usual)["2/t"] == 1


def test_as_the_reference_there_are_eight_slots_and_further_clients_join_at_the_cap() -> None:
    method = Disco(as_reference=True)
    state = meet(method, fresh(method), *((client, 41 * client, 1) for client in range(9)))
    assert len(state.adapters) == method.subspace_limit == 8
    assert homes(state)["8/t"] == 0  # 328 degrees: 32 from the first, 41 from the last
    four = Disco(as_reference=True, max_subspaces=4)
    state = meet(four, fresh(four), *((client, 40 * client, 1) for client in range(9)))
    assert len(state.adapters) == 4
    with pytest.raises(FcitError, match=r"method\.at_limit"):
        Disco(as_reference=True, at_limit="skip")


def test_as_the_reference_empty_slots_take_part_in_the_softmax_with_similarity_zero() -> None:
    got = routed(Disco(as_reference=True, max_subspaces=4), at(10), 0, 60)
    cosines = [math.cos(math.radians(10)), math.cos(math.radians(50)), 0.0, 0.0]
    want = (torch.tensor(cosines) / 0.05).softmax(0).tolist()
    assert got == pytest.approx(want[:2], rel=1e-4)
    apart = routed(Disco(as_reference=True), at(90), 0)  # unlike the one subspace: one of eight
    assert apart == pytest.approx([1 / 8], rel=1e-4)
    assert sum(routed(Disco(), at(90), 0)) == pytest.approx(1)


def test_a_client_gets_its_one_subspace_and_the_projector_alone() -> None:
    method = Disco()
    state = meet(method, fresh(method), (0, 0, 1), (1, 90, 1))
    sent = method.send(state, Turn(1, TASK, 0, 0))
    assert list(sent.adapters) == ["1"]
    assert list(sent.extras) == ["projector"]


def test_only_clients_of_one_subspace_are_averaged_by_samples() -> None:
    method = Disco()
    state = meet(method, fresh(method), (0, 0, 1), (1, 90, 1))
    full = torch.full

    def update(client: int, name: str, value: float, samples: int) -> Update:
        projector = {"w": full((1,), value)}
        return Update(
            client, samples, {name: {"a": full((2, 3), value)}}, {"projector": projector}, {}
        )

    after = method.aggregate(
        state, [update(0, "0", 1.0, 1), update(1, "1", 5.0, 2), update(2, "0", 4.0, 2)]
    )
    assert torch.allclose(after.adapters["0"]["a"], full((2, 3), 3.0))
    assert torch.allclose(after.adapters["1"]["a"], full((2, 3), 5.0))
    assert torch.allclose(after.extras["projector"]["w"], full((1,), (1 + 10 + 8) / 5))
    assert torch.equal(state.adapters["0"]["a"], BLANK["a"])  # the state before is untouched


def routed(method: Disco, feature: torch.Tensor, *angles: float) -> list[float]:
    opener = Disco(tau=1.0, token=method.token)
    state = fresh(opener)
    tokens = [at(a) if method.token != "both" else torch.cat([at(a), at(-a)]) for a in angles]
    state = opener.organise(state, [Identity(i, "t", t, 1) for i, t in enumerate(tokens)])
    return list(method.route(state, Query("t", feature)).values())


def test_ssa_is_a_softmax_of_cosines_over_the_temperature() -> None:
    got = routed(Disco(temperature=0.05), at(10, length=7.0), 0, 60)
    s = [math.cos(math.radians(10)) / 0.05, math.cos(math.radians(50)) / 0.05]
    want = torch.tensor(s).softmax(0).tolist()
    assert got == pytest.approx(want, rel=1e-4)
    assert sum(got) == pytest.approx(1.0)


def test_the_ablations_gates() -> None:
    assert routed(Disco(gate="argmax"), at(10), 0, 60) == [1.0, 0.0]
    assert routed(Disco(gate="concat"), at(10), 0, 60) == [1.0, 1.0]
    cosines = [math.cos(math.radians(10)), math.cos(math.radians(50))]
    assert routed(Disco(gate="cosine"), at(10), 0, 60) == pytest.approx(cosines, rel=1e-5)


def test_tokens_of_both_average_the_two_similarities() -> None:
    method = Disco(token="both", gate="cosine")
    feature = torch.cat([at(0, 3.0), at(-60, 0.1)])  # text like the first token, image the second
    got = routed(method, feature, 0, 60)
    assert got == pytest.approx([(1 + 0.5) / 2, (0.5 + 1) / 2], rel=1e-5)


@pytest.mark.parametrize("token", ["text", "both"])
def test_similarities_are_the_cosines_that_routes_are_computed_from(token: str) -> None:
    method = Disco(tau=1.0, token=token)  # type: ignore[arg-type]
    rows = [at(a) if token == "text" else torch.cat([at(a), at(a)]) for a in (0, 60)]
    state = fresh(method)
    query = Query("t", rows[0])
    assert method.similarities(state, query) == method.route(state, query) == {}
    state = method.organise(state, [Identity(i, "t", row, 1) for i, row in enumerate(rows)])
    cosines = method.similarities(state, query)
    assert cosines == pytest.approx({"0": 1.0, "1": 0.5}, rel=1e-5)
    want = (torch.tensor(list(cosines.values())) / method.temperature).softmax(dim=0)
    assert list(method.route(state, query).values()) == want.tolist()
