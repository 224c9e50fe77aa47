"""O-LoRA (Wang et al. 2023): a LoRA per stage, in directions orthogonal to those before."""

from __future__ import annotations

import torch

from fcit.methods.base import Query
from fcit.methods.olora import Olora, overlap
from fcit.types import Stage, State, Task, Turn, Weights

TASK = Task("t", ("t",))
STAGE = Stage((TASK,))
A = "base_model.model.layers.0.up.lora_A.weight"
B = "base_model.model.layers.0.up.lora_B.weight"


def block(*rows: list[float]) -> Weights:
    return {A: torch.tensor(rows), B: torch.zeros(5, len(rows))}


def begun(method: Olora, stages: int) -> State:
    blank = block([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8])
    state = method.start(blank, {"p": torch.zeros(1)}, seed=5)
    for _ in range(stages):
        state = method.begin(state, STAGE)
    return state


class Holding:
    """A model's `live` over given blocks."""

    def __init__(self, blocks: dict[str, Weights]):
        self.live = blocks.__getitem__


def test_the_penalty_is_zero_for_orthogonal_subspaces() -> None:
    old = block([1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0])
    new = block([0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 1.0, -1.0])
    assert float(overlap(new, [old, old])) == 0.0


def test_the_penalty_sums_the_absolute_entries_over_old_stages() -> None:
    old = [block([1.0, 0.0], [0.0, 2.0]), block([1.0, 1.0], [0.0, 0.0])]
    new = block([1.0, -1.0], [3.0, 0.0])
    # A_new A_0^T = [[1, -2], [3, 0]], A_new A_1^T = [[0, 0], [3, 0]]
    assert float(overlap(new, old)) == 9.0
    method = Olora(orthogonality=0.5)
    held = {"0": old[0], "1": old[1], "2": new}
    assert float(method.penalty(Holding(held), State(held), {}, None)) == 4.5
    first = {"0": new}
    assert method.penalty(Holding(first), State(first), {}, None) == 0.0


def test_its_gradient_turns_the_new_subspace_away_from_the_old() -> None:
    old = block([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    new = block([0.5, -0.25, 2.0], [0.0, 1.0, 1.0])
    new[A].requires_grad_()
    overlap(new, [old]).backward()
    assert new[A].grad is not None
    # sign(A_new A_old^T) A_old: towards the old rows, nothing along the third axis
    assert new[A].grad.tolist() == [[1.0, -1.0, 0.0], [0.0, 1.0, 0.0]]
    stepped = new[A].detach() - 0.1 * new[A].grad
    assert overlap({A: stepped, B: new[B]}, [old]).item() < overlap(new, [old]).item()


def test_every_stage_opens_a_lora_drawn_anew_and_only_it_learns() -> None:
    method = Olora()
    state = begun(method, 3)
    assert list(state.adapters) == ["0", "1", "2"]
    first, second, third = (state.adapters[name][A] for name in "012")
    assert not first.equal(second) and not second.equal(third)
    assert all(float(state.adapters[name][B].abs().sum()) == 0 for name in "012")
    again = begun(method, 3)
    assert all(state.adapters[name][A].equal(again.adapters[name][A]) for name in "012")
    sent = method.send(state, Turn(0, TASK, 2, 0))
    assert list(sent.adapters) == ["0", "1", "2"]
    assert method.trains(sent) == ["2"]
    assert set(sent.extras) == {"projector"}
    assert method.route(state, Query("t", None)) == {"0": 1.0, "1": 1.0, "2": 1.0}


def test_the_eleventh_stage_follows_the_tenth() -> None:
    state = begun(Olora(), 11)
    assert Olora().adapter(state, Turn(0, TASK, 10, 0)) == "10"
