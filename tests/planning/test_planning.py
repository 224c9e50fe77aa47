"""The plan of a run agrees with the run: turns, samples, bytes; what is not known is said."""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import replace
from math import ceil, prod
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

import fcit
from encoders import sentences
from fcit.cli import app
from fcit.files import read_lines
from fcit.models import CHECKPOINTS
from fcit.models.size import TokenCounter, encoder_size, model_size
from fcit.planning import estimates, plan
from fcit.planning.counts import SampleCounts
from fcit.planning.memory import training_memory
from fcit.planning.rehearsal import rehearse
from fcit.recipe.config import Config, load, validate
from fcit.types import FcitError, Job, Sample, State, Task, Turn
from fcit.watch import Silent
from fcit.worker.experiment import Experiment

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(autouse=True)
def _nothing_is_timed_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "SMALL", 0)


@pytest.mark.parametrize(
    ("method", "optimizer", "wire", "ranks"),
    [
        ("disco", "fedavg", "bfloat16", [3, 8]),
        ("disco_lda", "fedavg", "int8", []),
        ("ewc", "scaffold", "int8", []),
        ("fedsa_lora", "fedprox", "int8", []),
        ("fedex_lora", "fedavg", "float32", [5, 8]),
    ],
)
def test_a_run_sends_what_was_planned(
    method: str, optimizer: str, wire: str, ranks: list[int], table: dict, tmp_path: Path
) -> None:
    changed = copy.deepcopy(table)
    changed["federation"] |= {"wire": wire, "ranks": ranks}
    changed["method"]["name"], changed["federation"]["optimizer"] = method, optimizer
    changed["data"]["train"] = 16
    changed["evaluation"] = {"limit": 2, "max_new_tokens": 2, "general_questions": 3}
    found = plan(validate(changed))
    fcit.run(changed, tmp_path / "run")
    rows = read_lines(tmp_path / "run" / "log.jsonl")
    for number, stage in enumerate(found.stages, 1):
        mine = [row for row in rows if row["stage"] == number]
        assert stage.rounds == len(mine)
        assert stage.samples == sum(sum(row["samples"]) for row in mine)
        assert stage.down_all == sum(sum(row["bytes_down"]) for row in mine)
        assert stage.up_all == sum(sum(row["bytes_up"]) for row in mine)
        assert stage.sampled == len({client for row in mine for client in row["clients"]})
    said = tmp_path / "run" / "predictions"
    asked = {
        part.name: sum(len(read_lines(one)) for one in part.glob("*.jsonl"))
        for part in said.iterdir()
    }
    assert {str(at): stage.tests for at, stage in enumerate(found.stages, 1)} | {
        "zero-shot": found.zero_shot
    } == asked
    assert found.notes == ()
    assert all(value > 0 for value in found.seconds.values())


def test_reference_points_have_the_stages_they_train(table: dict) -> None:
    changed = copy.deepcopy(table)
    changed["evaluation"]["general_questions"] = 3
    for method, tests in (("zeroshot", []), ("individual", [0, 12]), ("multitask", [15])):
        changed["method"] = {"name": method}
        found = plan(validate(changed))
        assert [stage.tests for stage in found.stages] == tests
        assert found.zero_shot == 15


def test_who_trains_on_what_is_named(table: dict) -> None:
    config = validate(table)
    rounds = [turns for stage in plan(config).stages for turns in stage.turns]
    real = [turns for stage in Experiment(config).plan for turns in stage]
    assert rounds == [tuple((one.client, one.task.name) for one in turns) for turns in real]


def test_the_mini_suite_is_planned_without_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FCIT_CACHE", str(tmp_path))
    found = plan(load(RECIPES / "own.toml", ["evaluation.general_questions=0"]))
    assert [stage.tasks for stage in found.stages] == [
        ("pictures",), ("plots", "plots", "sums"), ("pictures", "sums", "sums"),
    ]  # fmt: skip
    assert [(stage.rounds, stage.clients) for stage in found.stages] == [(3, 6), (2, 7), (2, 10)]
    assert [stage.tests for stage in found.stages] == [400, 400, 400]
    assert all(stage.samples and stage.steps and stage.down for stage in found.stages)
    assert not list(tmp_path.glob("mini-*"))
    assert found.notes == ()


def test_what_is_not_here_is_said_and_the_rest_planned(tmp_path: Path) -> None:
    recipe = RECIPES / "paper" / "cap-het.toml"
    changes = [f"data.root={tmp_path / 'none'}", "model.device=cpu"]
    found = plan(load(recipe, changes))
    assert [stage.rounds for stage in found.stages] == [10] * 4
    assert found.stages[0].tasks == ("General", "Chart", "Chart", "Other", "Other")
    assert (found.stages[0].samples, found.stages[0].down, found.memory) == (None, None, {})
    data, model = found.notes
    assert "no such folder; their samples are not counted" in data
    assert "llava-hf/llava-1.5-7b-hf does not load: it is not on this disk" in model
    known = plan(load(recipe, [*changes, "model.path="]))
    assert known.stages[0].samples is None
    assert known.stages[0].down
    assert known.memory["base model"] > 0
    assert known.seconds == {}
    assert any("identity features are taken to be 768 wide" in note for note in known.notes)


def test_the_identity_encoder_takes_memory_where_there_is_one(table: dict) -> None:
    taken = {
        name: plan(validate(table | {"method": {"name": name}})).memory
        for name in ("disco", "finetune")
    }
    weights = load_file(CHECKPOINTS / "mini-clip" / "model.safetensors")
    own = [value.numel() for key, value in weights.items() if not key.endswith("position_ids")]
    assert taken["disco"]["identity encoder"] == 4 * sum(own)
    assert "identity encoder" not in taken["finetune"]


def test_an_identity_encoder_is_counted_or_refused_by_its_files(
    table: dict, tmp_path: Path
) -> None:
    folder = sentences(tmp_path / "st")
    model = {"identity": str(folder)}
    made = plan(validate(table | {"model": table.get("model", {}) | model}))
    assert made.memory["identity encoder"] == 4 * encoder_size(folder)[1]
    with pytest.raises(FcitError, match="has no image tower, which tokens of both need"):
        plan(validate(table | {"model": model, "method": {"name": "hide"}}))
    with pytest.raises(
        FcitError, match=r"\[model\] identity: .*model_type is 'llava', neither a CLIP"
    ):
        encoder_size(CHECKPOINTS / "mini-lmm")


def test_what_training_would_refuse_is_not_guessed(table: dict) -> None:
    changed = table | {"training": table["training"] | {"max_length": 40}}
    with pytest.raises(FcitError, match=r"training\.max_length: 40 tokens cut off"):
        plan(validate(changed))


def test_the_command_prints_tables_or_json(suite: Path) -> None:
    words = [
        "plan",
        str(RECIPES / "own.toml"),
        "--method",
        "finetune",
        "--set",
        f"data.root={suite}",
    ]
    words += ["--set", "data.size=", "--set", "federation.min_samples=4"]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    for part in ("growing", "finetune", "plots + sums", "3 of 6", "base model", "lower bound"):
        assert part in shown.output
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert (found["setting"], found["measured"]) == ("growing", False)
    assert [stage["rounds"] for stage in found["stages"]] == [3, 2, 2]


def test_a_million_rounds_are_planned_in_seconds(
    table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcit.planning.MOST_ROUNDS", 200)
    changed = copy.deepcopy(table)
    changed["federation"]["rounds"] = 1_000_000
    begun = time.process_time()
    planned = plan(validate(changed))
    assert time.process_time() - begun < 30
    assert [stage.rounds for stage in planned.stages] == [1_000_000] * 2
    changed["federation"]["rounds"] = 200  # all of these are looked at
    short = plan(validate(changed))
    for long, exact in zip(planned.stages, short.stages, strict=True):
        assert long.samples == pytest.approx(5000 * (exact.samples or 0), rel=0.01)
        assert long.down_all == pytest.approx(5000 * (exact.down_all or 0), rel=0.01)
    assert any("extrapolated" in note for note in planned.notes)
    assert not short.notes


def test_a_small_model_is_timed_unasked_on_samples_of_every_dataset(
    table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "SMALL", 50_000_000)
    changed = copy.deepcopy(table)
    changed["evaluation"] = {"batch_size": 2, "max_new_tokens": 2, "general_questions": 0}
    planned = plan(validate(changed))
    assert planned.measured and all(value > 0 for value in planned.seconds.values())


@pytest.mark.slow
def test_the_time_of_the_demo_is_within_a_factor_of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, so that both sides are slowed down alike by what else the machine does."""
    monkeypatch.setattr(estimates, "SMALL", 50_000_000)
    config = load(RECIPES / "demo.toml", ["federation.workers=1"])
    planned = sum(plan(config).seconds.values())
    Experiment(config).prepare(Silent())
    begun = time.perf_counter()
    fcit.run(config, tmp_path / "run")
    real = time.perf_counter() - begun
    print(f"planned {planned:.0f} s, took {real:.0f} s")
    assert real / 2 < planned < 2 * real


def test_real_steps_are_timed_when_asked(table: dict) -> None:
    changed = copy.deepcopy(table)
    changed["data"]["train"] = 16
    changed["evaluation"] = {"limit": 2, "max_new_tokens": 2, "general_questions": 0}
    found = plan(validate(changed), measure=True)
    assert found.measured
    assert set(found.seconds) == {"training", "answering"}
    assert all(value > 0 for value in found.seconds.values())


def test_the_size_of_a_model_is_that_of_its_weights(lmm) -> None:
    from fcit.seeds import torch_stream

    lmm.receive(State(), 1.0)  # nobody's adapter
    found = model_size(CHECKPOINTS / "mini-lmm")
    assert found.parameters == sum(value.numel() for value in lmm.model.parameters())
    real = lmm.subspaces.blank(4, 0.1, torch_stream(0, "x"))
    assert {k: v.shape for k, v in found.blank(4).items()} == {k: v.shape for k, v in real.items()}
    assert {k: v.shape for k, v in found.blank_projector().items()} == {
        k: v.shape for k, v in lmm.base_projector.items()
    }
    assert (found.image_tokens, found.patches, found.features) == (36, 36, 36 * 128)


def of_one_adapter(
    table: dict, number: int, device: str, length: int = 60, method: str = "finetune", **model: str
) -> dict[str, int]:
    """The memory of a step of eight samples with dropout, and one adapter of rank 8, which learns."""
    training = {"batch_size": 8, "micro_batch": 0, "dropout": 0.1, "checkpointing": False}
    own = {"training": training, "method": {"name": method, "rank": 8}, "model": model}
    lengths = estimates.SampleLengths(length, 2, length, 2)
    job = Job(Turn(0, Task("IconQA", ("IconQA",)), 0, 0), State({"0": {}}))
    size, experiment = model_size(CHECKPOINTS / "mini-lmm"), Experiment(validate(table | own))
    return training_memory(experiment, size, lengths, job, 8, number, device)


def test_memory_counts_what_autograd_keeps(lmm, table: dict, suite: Path) -> None:
    import torch

    from fcit.benchmark import datasets
    from fcit.seeds import torch_stream

    samples = datasets.read(suite, "Flickr30k", "train")[:8]
    batch = lmm.batch(samples, [datasets.image_path(suite, one) for one in samples])
    block = lmm.subspaces.blank(8, 0.1, torch_stream(0, "x"))
    lmm.receive(State({"0": block}), 2.0, ["0"], True)
    control = lmm.subspaces.control
    control.noise, control.dropout = torch_stream(0, "y"), 0.1
    own = {part.untyped_storage().data_ptr() for part in lmm.model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        if value.untyped_storage().data_ptr() not in own:
            kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        lmm.loss(batch)
    real = sum(value.untyped_storage().nbytes() for value in kept.values())
    estimated = of_one_adapter(table, 4, "cpu", batch.ids.shape[1])
    assert estimated["activations"] == pytest.approx(real, rel=0.1)


def test_memory_is_that_of_the_longest_text_and_the_largest_image(
    table: dict, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcit.planning.counts.SAMPLES_READ", 2)
    root = tmp_path / "data"
    shutil.copytree(suite, root)
    changed = copy.deepcopy(table)
    changed["data"] = {"root": str(root)}
    few = plan(validate(changed)).memory
    path = next(root.glob(f"instructions/{changed['setting']['order'][0]}/train*.json"))
    rows = json.loads(path.read_text("utf-8"))
    rows[-3]["conversations"][0]["value"] += "\nstar" * 200
    path.write_text(json.dumps(rows), "utf-8")
    assert sum(plan(validate(changed)).memory.values()) > 1.2 * sum(few.values())
    heaviest, _ = SampleCounts(Experiment(validate(changed)), []).heaviest()
    assert "star\nstar" in heaviest.samples[0].prompt
    monkeypatch.setattr("fcit.planning.counts.IMAGES_READ", 7)
    assert len(SampleCounts(Experiment(validate(changed)), []).heaviest()[1]) <= 14


def test_long_texts_with_small_images_are_not_refused_for_other_samples_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with a model whose images have as many tokens as their size asks for."""

    def image(self: TokenCounter, size: tuple[int, int]) -> tuple[str, int, int]:
        tokens = prod(size) // 256
        return self.processor.image_token * tokens, tokens, tokens

    monkeypatch.setattr(TokenCounter, "image", image)
    folder, small, large = CHECKPOINTS / "mini-lmm", (16, 16), (64, 64)
    short = [Sample(str(n), "A", "a.png", "What?", ("yes",)) for n in range(5)]
    long = Sample("9", "B", "b.png", "word " * 40, ("yes it is",))
    counter, size = TokenCounter(folder), replace(model_size(folder), image_tokens=16)
    text, tokens, _ = counter.image(small)
    [(length, answer)] = counter.lengths([long], [text], 4096)

    def experiment(limit: int) -> Experiment:
        return Experiment(validate({"training": {"max_length": limit}}))

    asked = [*((sample, large) for sample in short), (long, small)]
    for heaviest in ([], [(long, small)]):
        found = estimates.sample_lengths(experiment(length), size, asked, heaviest, [])
        assert (found.longest, found.longest_answer) == (length, answer)
    found = estimates.sample_lengths(experiment(4096), size, asked, asked[-1:], [])
    assert found.longest == length - tokens + size.image_tokens
    for samples, heaviest in (([*asked, (long, large)], []), (asked, [(long, large)])):
        with pytest.raises(FcitError, match="cut off the image or the whole answer of B sample 9"):
            estimates.sample_lengths(experiment(length), size, samples, heaviest, [])


def test_a_quantised_weight_takes_fewer_bytes_and_the_rest_stays(table: dict) -> None:
    found = model_size(CHECKPOINTS / "mini-lmm")
    whole, four = (of_one_adapter(table, 2, "cuda", quantize=bits) for bits in ("none", "4bit"))
    assert 0 < found.matrices < found.decoder
    assert whole["base model"] - four["base model"] == 1.5 * found.matrices


def test_factors_that_do_not_learn_have_no_gradients(table: dict) -> None:
    """ffa_lora trains and receives B alone."""
    found = model_size(CHECKPOINTS / "mini-lmm")
    methods = ("finetune", "ffa_lora")
    halves = [of_one_adapter(table, 2, "cpu", method=method) for method in methods]
    downs = sum(8 * wide for wide, _ in found.layers.values())
    for part, bytes_each in (("gradients and AdamW", 12), ("received", 4)):
        assert halves[0][part] - halves[1][part] == bytes_each * downs > 0
    assert halves[0]["adapters"] == halves[1]["adapters"]


def test_what_is_timed_is_a_usual_round_of_the_last_stage(table: dict) -> None:
    shape, jobs = model_size(CHECKPOINTS / "mini-lmm"), {}
    for method in ("ewc", "lwf", "olora"):
        config = validate(table | {"method": {"name": method}})
        jobs[method] = rehearse(Experiment(config), shape, 64)[-1]
    assert "fisher-wanted" in jobs["ewc"].last.received.extras
    assert "fisher-wanted" not in jobs["ewc"].usual.received.extras
    assert "fisher" in jobs["ewc"].usual.received.extras
    assert "teacher" in jobs["lwf"].usual.received.adapters
    assert len(jobs["olora"].usual.received.adapters) == 2


def test_a_batch_larger_than_any_clients_data_is_not_made_up(
    table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []

    def times(*given: object) -> estimates.Times:
        timed.extend(given[-2:])  # type: ignore[arg-type]
        return estimates.Times(1.0, 1.0)

    monkeypatch.setattr(estimates, "measured_times", times)
    huge = {"training": {"batch_size": 10**9}}
    found = plan(validate(table | huge), measure=True)
    samples, tests = sum(stage.samples or 0 for stage in found.stages), found.stages[-1].tests
    assert timed == [ceil(samples / 8), tests]  # every one of the eight turns is one step
    assert found.general == 2


def test_a_timed_step_has_as_many_samples_as_is_said(
    table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients have less than a whole batch: steps of that size are timed. And a plan writes nothing."""
    made: list[Config] = []

    def worker(config: Config) -> None:
        made.append(config)
        raise FcitError("enough")

    monkeypatch.setattr(estimates, "ModelWorker", worker)
    with pytest.raises(FcitError, match="enough"):
        plan(validate(table | {"training": {"batch_size": 64}}), measure=True)
    samples = sum(stage.samples or 0 for stage in plan(validate(table)).stages)
    assert made[0].training.batch_size == ceil(samples / 8) < 64
    assert not made[0].model.cache_features


def test_a_last_rounds_extra_is_added_once_a_stage(
    table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "measured_times", lambda *_: estimates.Times(1.0, 0.0, 100.0))
    found = plan(validate(table | {"method": {"name": "ewc"}}), measure=True)
    steps = sum(stage.steps or 0 for stage in found.stages)
    assert found.seconds["training"] == steps + 2 * 2 * 100


def test_one_client_a_round_keeps_one_worker_busy(
    table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "products_per_second", lambda *_: 1e9)
    times = []
    for workers in (1, 2):
        federation = table["federation"] | {"workers": workers}
        changed = table | {"federation": federation, "method": {"name": "multitask"}}
        times.append(plan(validate(changed)).seconds)
    assert times[0]["training"] == times[1]["training"]
    assert times[0]["answering"] == 2 * times[1]["answering"]


def test_fewer_subspaces_than_tasks_are_planned_with_and_said(table: dict) -> None:
    found = plan(validate(table | {"method": {"name": "disco", "max_subspaces": 1}}))
    assert found.stages[-1].down
    said = "which of the 2 tasks share a subspace: the plan has 1 subspaces"
    assert f"{said} (method.max_subspaces)" in found.notes


def test_a_key_that_a_method_does_not_have_is_not_named(
    table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(validate({"method": {"name": "finetune"}}).method)
    monkeypatch.setattr(kind, "subspace_limit", property(lambda self: 1))
    found = plan(validate(table | {"method": {"name": "finetune"}}))
    assert "which of the 2 tasks share a subspace: the plan has 1 subspaces" in found.notes


@pytest.mark.parametrize("key", ["path", "identity"])
def test_a_folder_with_code_of_its_own_ends_the_plan_and_the_run(key: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "odd", "auto_map": {"AutoConfig": "a.A"}}'
    )
    config = load(RECIPES / "demo.toml", [f"model.{key}={tmp_path}", "data.size=tiny"])
    for start in (lambda: plan(config), lambda: fcit.run(config, tmp_path / "run")):
        with pytest.raises(FcitError, match=r"config\.json: auto_map names Python code"):
            start()


@pytest.mark.parametrize("recipe", sorted((RECIPES / "real").glob("*.toml")), ids=lambda p: p.stem)
def test_recipes_for_real_models_are_planned_as_far_as_what_is_here_goes(recipe: Path) -> None:
    config = load(recipe, ["data.root=", "data.size=tiny"])
    assert config.model.path and config.model.identity
    assert "TO BE FILLED IN" not in recipe.read_text()
    found = plan(config)
    assert [stage.rounds for stage in found.stages] == [config.federation.rounds] * 8
    assert any("does not load" in note for note in found.notes)


def test_memory_is_planned_for_a_device_that_is_not_here(table: dict) -> None:
    model = {"device": "cuda", "dtype": "bfloat16", "device_map": "auto"}
    found = plan(validate(table | {"model": model}))
    assert found.device == "cuda" and found.memory
    assert any("sum over all" in note for note in found.notes)
