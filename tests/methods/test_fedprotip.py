"""FedProTIP's projection: a new LoRA reads nothing of the directions that old tasks' inputs have."""

from __future__ import annotations

import pytest
import torch

from fcit.aggregation.packing import pack_message, unpack_message
from fcit.benchmark import datasets
from fcit.methods.fedprotip import Fedprotip, grown, project
from fcit.rounds.client import Data, Training, take_turn
from fcit.seeds import torch_stream
from fcit.types import Job, Stage, State, Task, Tensor, Turn, Update
from fcit.weights import factors

TASK = Task("t", ("t",))
STAGE = Stage((TASK,))
A = "base_model.model.layers.0.up.lora_A.weight"
B = "base_model.model.layers.0.up.lora_B.weight"


def sketched(variances: Tensor, directions: int, turned: Tensor | None = None):
    """C, Omega and C Omega for inputs with these variances along the axes of a rotation."""
    noise = torch.Generator().manual_seed(len(variances))
    axes = torch.eye(len(variances)) if turned is None else turned
    c = axes * variances @ axes.T
    omega = torch.randn(len(c), directions, generator=noise)
    return c, omega, c @ omega


def test_the_bases_are_the_fewest_directions_that_hold_the_energy() -> None:
    variances = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    c, omega, sketch = sketched(variances, 6)
    s = grown(None, sketch, omega, float(c.trace()), 0.8)
    assert s.shape == (8, 3)  # 8 + 4 + 2 of 16
    torch.testing.assert_close(s @ s.T, torch.diag(torch.tensor([1.0] * 3 + [0.0] * 5)))


def test_later_stages_add_what_is_missing_and_no_more() -> None:
    variances = torch.tensor([4.0, 4.0, 0.0, 0.0, 0.0, 0.0])
    _, omega, sketch = sketched(variances, 4)
    s = grown(None, sketch, omega, 8.0, 0.9)
    assert s.shape == (6, 2)
    assert grown(s, sketch, omega, 8.0, 0.9).equal(s)
    _, omega, sketch = sketched(variances.roll(1), 4)  # one axis is old, one new
    more = grown(s, sketch, omega, 8.0, 0.9)
    assert more.shape == (6, 3) and more[:, :2].equal(s)
    torch.testing.assert_close(more.T @ more, torch.eye(3))
    assert more[2, 2].abs().item() == pytest.approx(1)
    assert grown(s, -sketch, omega, 8.0, 0.9).equal(s)  # no second moments at all


def test_a_whole_space_takes_no_more_directions() -> None:
    """However much energy is asked for. Otherwise rounding would be added, and S S^T project nothing."""
    s = None
    for number in range(8):
        turned = torch.linalg.qr(torch.randn((12, 12), generator=torch_stream(number, "turn")))[0]
        c, omega, sketch = sketched(torch.linspace(1.0, 9.0, 12), 5, turned)
        s = grown(s, sketch, omega, float(c.trace()), 0.99)
        assert s.shape == (12, min(12, 5 * (number + 1)))
        torch.testing.assert_close(s.T @ s, torch.eye(s.shape[1]), atol=1e-5, rtol=0)


def test_no_more_directions_than_columns_are_added() -> None:
    c, omega, sketch = sketched(torch.ones(9), 4)
    assert grown(None, sketch, omega, float(c.trace()), 0.99).shape == (9, 4)


def test_a_projected_lora_changes_nothing_where_old_inputs_are() -> None:
    noise = torch.Generator().manual_seed(1)
    block = {A: torch.randn(2, 6, generator=noise), B: torch.randn(5, 2, generator=noise)}
    s = torch.linalg.qr(torch.randn(6, 3, generator=noise)).Q
    project(block, {"layers.0.up": s, "layers.1.up": s})
    old, new = s @ torch.randn(3, generator=noise), torch.randn(6, generator=noise)
    torch.testing.assert_close(block[B] @ block[A] @ old, torch.zeros(5), atol=1e-5, rtol=0)
    assert float((block[B] @ block[A] @ new).norm()) > 0.1


def begun() -> State:
    method, noise = Fedprotip(directions=2), torch.Generator().manual_seed(2)
    blank = {A: torch.randn(2, 6, generator=noise), B: torch.zeros(5, 2)}
    return method.begin(method.start(blank, {"p": torch.zeros(1)}, seed=5), STAGE)


def test_the_last_rounds_clients_measure_and_the_server_keeps_the_bases_alone() -> None:
    method, state = Fedprotip(directions=2, threshold=0.9), begun()
    assert set(method.send(state, Turn(0, TASK, 0, 0)).extras) == {"projector"}
    sent = method.send(state, Turn(0, TASK, 0, 1, True))
    assert set(sent.extras) == {"projector", "sketch"}
    expected = method.expects(sent)
    assert set(expected.extras) == {"projector", "sketch", "energy"}
    omega = sent.extras["sketch"]["layers.0.up"]
    updates = []
    for client, axis in enumerate((0, 3)):  # each client's inputs lie along one axis
        c = torch.zeros(6, 6)
        c[axis, axis] = 2.0
        sketch = {"layers.0.up": omega + c @ omega}
        extras = {"sketch": sketch, "energy": {"layers.0.up": c.trace()[None]}}
        updates.append(Update(client, 5, {"0": sent.adapters["0"]}, extras, {}))
    state = method.end(method.aggregate(state, updates), STAGE)
    assert set(state.extras) == {"blank", "projector", "seed", "bases"}
    s = state.extras["bases"]["layers.0.up"]
    torch.testing.assert_close(s @ s.T, torch.diag(torch.tensor([1.0, 0, 0, 1, 0, 0])))
    state = method.begin(state, STAGE)
    (a, b), (first, _) = (factors(state.adapters[name])["layers.0.up"] for name in "10")
    assert float((a @ s).abs().max()) < 1e-6 and not b.any()
    assert not torch.equal(a[:, 1], first[:, 1])
    later = method.send(state, Turn(0, TASK, 1, 0))
    assert list(later.adapters) == ["0", "1"] and method.trains(later) == ["1"]
    assert set(later.extras) == {"projector", "bases"}


def test_few_bytes_lose_nothing_of_small_inputs() -> None:
    method, state, wire = Fedprotip(directions=2, threshold=0.9), begun(), "bfloat16"
    noise = torch.Generator()
    sent = method.send(state, Turn(0, TASK, 0, 1, True))
    got = unpack_message(pack_message(sent, wire, noise, State()), wire, State())
    c = torch.diag(torch.tensor([0, 2e-6, 0, 0, 0, 0]))  # inputs of about 0.001
    sketch = {path: omega + c @ omega for path, omega in got.extras["sketch"].items()}
    extras = {"sketch": sketch, "energy": {"layers.0.up": c.trace()[None]}}
    update = pack_message(Update(0, 5, dict(got.adapters), extras, {}), wire, noise, got)
    update = unpack_message(update, wire, sent)
    s = method.end(method.aggregate(state, [update]), STAGE).extras["bases"]["layers.0.up"]
    assert s.shape == (6, 1) and s[1].abs().item() == pytest.approx(1, abs=1e-3)


def test_a_turn_stays_outside_and_measures_every_token_but_padding(lmm, suite) -> None:
    rows = [datasets.read(suite, name, "train")[0] for name in ("IconQA", "Flickr30k", "ArxivQA")]
    data = Data(rows, [datasets.image_path(suite, row) for row in rows])
    method = Fedprotip(rank=2, directions=4)
    blank = lmm.subspaces.blank(2, 0.05, torch_stream(0, "init"))
    state = method.begin(method.start(blank, lmm.base_projector), STAGE)
    bases = {path: torch.linalg.qr(value).Q for path, value in state.extras["sketch"].items()}
    state = State(state.adapters, state.extras | {"bases": bases})
    turn = Turn(0, TASK, 0, 0, True)
    received = method.send(state, turn)
    training = Training(lr=1e-2, batch_size=3)
    update, _ = take_turn(Job(turn, received, 3), method, lmm, data, training, 0, {})
    trained = factors(update.adapters["0"])
    assert max(float((a @ bases[path]).abs().max()) for path, (a, _) in trained.items()) < 1e-6
    assert all(float(b.abs().max()) > 0 for _, b in trained.values())
    seen: dict[str, list[Tensor]] = {path: [] for path in lmm.layers}
    hooks = [
        layer.register_forward_pre_hook(lambda _, x, path=path: seen[path].append(x[0][0]))
        for path, layer in lmm.subspaces.layers.items()
    ]
    with torch.no_grad():
        for row, image in zip(data.samples, data.images, strict=True):
            lmm.logits(lmm.batch([row], [image]))
    for hook in hooks:
        hook.remove()
    for path, parts in seen.items():
        x = torch.cat(parts).float()
        want = x.T @ (x @ state.extras["sketch"][path]) / len(x)
        got = update.extras["sketch"][path] - state.extras["sketch"][path]
        torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-2 * float(want.abs().max()))
        mean = x.square().sum() / len(x)
        assert float(update.extras["energy"][path]) == pytest.approx(float(mean), rel=1e-2)
    lmm.receive(State(), 2.0)
