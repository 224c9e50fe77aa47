"""Arithmetic on Weights and their one form on disk."""

from __future__ import annotations

import pytest
import torch

from fcit.types import FcitError, State
from fcit.weights import cosine, flatten, from_bytes, load, mean, nbytes, save, to_bytes, unflatten


def test_mean_is_weighted_by_counts() -> None:
    parts = [{"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([8.0, 0.0])}]
    assert mean(parts, [3, 1])["w"].tolist() == [2.0, 3.0]


def test_mean_refuses_parts_that_do_not_match_and_names_the_tensor() -> None:
    with pytest.raises(FcitError, match="odd"):
        mean([{"w": torch.zeros(1)}, {"w": torch.zeros(1), "odd": torch.zeros(1)}], [1, 1])


def test_cosine_ignores_length() -> None:
    a = torch.tensor([[3.0, 0.0]])
    b = torch.tensor([[0.5, 0.0], [0.0, 9.0], [-1.0, 0.0]])
    assert cosine(a, b).tolist() == [[1.0, 0.0, -1.0]]


def test_a_name_with_a_slash_is_refused_and_not_shortened() -> None:
    weights = {"w": torch.ones(1)}
    with pytest.raises(FcitError, match="'speed/0'"):
        flatten(State({"0": weights}, {"speed/0": weights}))


def test_a_state_survives_flattening_names_with_slashes_included() -> None:
    state = State({"0": {"a.b/c": torch.ones(2)}}, {"members": {"3/ImageNet-R": torch.tensor(1)}})
    again = unflatten(from_bytes(to_bytes(flatten(state))))
    assert torch.equal(again.adapters["0"]["a.b/c"], torch.ones(2))
    assert again.extras["members"]["3/ImageNet-R"].item() == 1


def test_the_same_tensors_give_the_same_bytes_in_any_order() -> None:
    a, b = torch.ones(3), torch.zeros(2, dtype=torch.int64)
    assert to_bytes({"a": a, "b": b}) == to_bytes({"b": b, "a": a})
    assert nbytes({"a": a, "b": b}) == 12 + 16


def test_files_come_back_and_broken_ones_are_named(tmp_path) -> None:
    path = tmp_path / "w.safetensors"
    save(path, {"a": torch.arange(3.0)})
    assert load(path)["a"].tolist() == [0.0, 1.0, 2.0]
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]
    path.write_bytes(b"nonsense")
    with pytest.raises(FcitError, match="w.safetensors"):
        load(path)
    with pytest.raises(FcitError, match="gone.safetensors"):
        load(tmp_path / "gone.safetensors")


def test_a_tensor_under_two_names_is_written_twice() -> None:
    one = torch.arange(6.0).reshape(2, 3)
    both = {"a": one, "b": one, "row": one[1]}
    got = from_bytes(to_bytes(both))
    assert all(got[name].equal(both[name]) for name in both)
    assert to_bytes(both) == to_bytes({name: value.clone() for name, value in both.items()})
