"""Recipes: every key reachable, every mistake named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcit.files import parse_toml
from fcit.methods import find, names
from fcit.recipe import config
from fcit.recipe.keys import sections
from fcit.recipe.sections import SIZES
from fcit.types import FcitError

FILES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml"))
RECIPES = [
    path for path in FILES if "[[runs]]" not in path.read_text("utf-8")
]  # sweeps name recipes


def recipe(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert config.load(path).setting.name


def test_an_empty_recipe_has_the_papers_federation(tmp_path) -> None:
    got = config.load(recipe(tmp_path, ""))
    federation = got.federation
    assert (federation.clients, federation.per_round, federation.rounds) == (50, 5, 10)
    assert got.method.name == "disco"


def test_set_reaches_any_key(tmp_path) -> None:
    changes = ["federation.rounds=2", "seed=7", "method.tau=0.5", "setting.name=cap-hom"]
    got = config.load(recipe(tmp_path, "[federation]\nrounds = 9\n"), changes)
    assert (got.federation.rounds, got.seed, got.setting.name) == (2, 7, "cap-hom")
    assert got.method.tau == 0.5


def test_another_method_keeps_what_it_has_and_drops_the_rest(tmp_path) -> None:
    path = recipe(tmp_path, '[method]\nname = "disco"\nrank = 4\ntau = 0.8\n')
    got = config.load(path, method="finetune")
    assert (got.method.name, got.method.rank) == ("finetune", 4)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sed = 1", "sed: unknown key"),
        ("[federation]\nround = 1", "federation.round: unknown key"),
        ('[federation]\nrounds = "2"', "federation.rounds"),
        ("[federation]\nrounds = 0", "federation.rounds"),
        ("[federation]\nclients = 3\nper_round = 5", "per_round"),
        ("[setting]\nbeta = -1.0", "setting.beta"),
        ('[setting]\nname = "task"', "setting.name: 'task' is none of task-hom"),
        ('[setting]\nname = "a/b"', "setting.name"),
        ("setting = 3", "setting: "),
        ('[[setting.stages]]\nslots = ["DVQA"]', "setting.name: task-hom has its own"),
        (
            '[setting]\nname = "a"\n[[setting.stages]]',
            "setting.stages, no. 1.slots: is missing",
        ),
        ('[setting]\nname = "a"\n[[setting.stages]]\nslots = []', "setting.stages, no. 1.slots"),
        ('[setting]\nname = "a"\n[[setting.stages]]\nslots = "DVQA"', "no. 1.slots"),
        (
            '[setting]\nname = "a"\n[[setting.stages]]\nslots = ["DVQA"]\nround = 1',
            "setting.stages, no. 1.round: unknown key",
        ),
        (
            '[setting]\nname = "a"\n[[setting.stages]]\nslots = ["DVQA"]\nclients = 0',
            "setting.stages, no. 1.clients: at least one client",
        ),
        (
            '[setting]\nname = "a"\norder = ["DVQA"]\n[[setting.stages]]\nslots = ["DVQA"]',
            "setting.order: only for the four",
        ),
        ('[method]\nname = "disko"', "disko"),
        ('[method]\nname = "disco"\ntao = 1', "tao"),
        ('[method]\nname = "disco"\ntau = "high"', "tau"),
        ('[method]\nname = "disco"\ntau = 3.0', "method.tau"),
        ('[method]\nname = "disco"\ngate = "hard"', "gate"),
        ('[federation]\noptimizer = "fedsgd"', "fedsgd"),
        ('[federation]\naverage = "mean"', "federation.average"),
        ("[federation]\noptimizer_options = {mu = 1}", "fedavg has no 'mu'"),
        ('[federation]\noptimizer = "fedprox"\noptimizer_options = {nu = 1}', "its options are mu"),
        (
            '[federation]\noptimizer = "fedprox"\noptimizer_options = {mu = -1}',
            "optimizer_options.mu",
        ),
        (
            '[federation]\noptimizer = "fedprox"\noptimizer_options = {mu = "a"}',
            "federation.optimizer_options.mu",
        ),
        ('[federation]\noptimizer = "fedprox"\noptimizer_options = {mu = 2020-01-01}', "mu"),
        ("[federation]\noptimizer_options = 3", "optimizer_options"),
        ("[federation\n", "not valid TOML"),
        ("data = 3", "data"),
        ('[data]\nsize = "huge"', "data.size"),
        ('[data]\nroot = "mine"\nsize = "tiny"', "data.size = 'tiny' is a size of the mini suite"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path, text: str, named: str) -> None:
    with pytest.raises(FcitError) as caught:
        config.load(recipe(tmp_path, text))
    assert named in str(caught.value)
    assert "r.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_seed_that_no_generator_takes_is_refused() -> None:
    assert config.validate({"seed": 2**63 - 1}).seed == 2**63 - 1
    with pytest.raises(FcitError, match="seed"):
        config.validate({"seed": 2**63})


def test_paths_of_a_change_start_at_the_folder_of_what_has_it(tmp_path) -> None:
    rule = json.dumps(str(tmp_path / "close.py"))
    assert config.anchored("data.rules.Plants=close.py", tmp_path) == f"data.rules.Plants={rule}"
    changed = config.anchored('data.images=["a", "b"]', tmp_path)
    assert json.loads(changed.partition("=")[2]) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert config.anchored("method.tau=0.5", tmp_path) == "method.tau=0.5"
    whole = config.anchored('data.rules={"My Plants"="close.py"}', tmp_path)
    rules = parse_toml(whole)["data"]["rules"]
    assert rules == {"My Plants": str(tmp_path / "close.py")}


def test_a_home_folder_that_nobody_has_is_named() -> None:
    with pytest.raises(FcitError, match=r"~nosuchuser/x: no such home folder"):
        config.validate({"data": {"root": "~nosuchuser/x"}})


@pytest.mark.parametrize(
    ("method", "change", "said"),
    [
        ("fedprotip", 'federation.robust="krum"', "krum.* is incompatible with .*fedprotip"),
        ("ffa_lora", 'method.projector="lora"', "method.projector: "),
        (
            "disco",
            'method.projector="lora"',
            "federation.ranks is incompatible with method.projector",
        ),
    ],
)
def test_what_does_not_go_together_is_named(method: str, change: str, said: str, tmp_path) -> None:
    ranks = ["federation.ranks=[4, 8]"] if method == "disco" else []
    path = recipe(tmp_path, "")
    config.load(path, ranks, method)
    with pytest.raises(FcitError, match=said):
        config.load(path, [change, *ranks], method)


def test_a_path_that_is_no_text_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.validate({"data": {"root": Path("mine")}}).data.root == str(tmp_path / "mine")
    dated = str(tmp_path / "2025-01-31")
    assert config.load(recipe(tmp_path, ""), ["data.root=2025-01-31"]).data.root == dated
    assert config.anchored("data.root=2025-01-31", tmp_path) == f'data.root="{dated}"'


@pytest.mark.parametrize("change", ["federation.rounds", "=3", "seed.deeper.still=1"])
def test_a_malformed_set_is_an_error(tmp_path, change: str) -> None:
    with pytest.raises(FcitError):
        config.load(recipe(tmp_path, ""), [change])


def test_relative_paths_start_at_the_recipe(tmp_path) -> None:
    got = config.load(recipe(tmp_path, '[data]\nroot = "here"\n[model]\npath = "org/name"\n'))
    assert got.data.root == str(tmp_path / "here")
    assert got.model.path == "org/name"  # a hub id stays one


def test_a_size_says_how_many_samples_and_a_count_of_your_own_goes_first(tmp_path) -> None:
    path = recipe(tmp_path, "")
    assert config.load(path).data.counts == SIZES["small"]
    for size, counts in SIZES.items():
        got = config.load(path, [f"data.size={size}"])
        assert got.data.counts == counts
        got = config.load(path, [f"data.size={size}", "data.train=7"])
        assert got.data.counts == (7, counts[1])
    ordered = list(SIZES.values())
    assert ordered == sorted(ordered)
    assert all(test >= 300 for _, test in ordered)


def test_a_root_of_your_own_has_no_size(tmp_path) -> None:
    path = recipe(tmp_path, '[data]\nroot = "mine"\ntrain = 5\n')
    got = config.load(path)
    assert (got.data.size, got.data.train) == ("", 5)
    assert config.validate(config.to_table(got)).data == got.data
    sized = recipe(tmp_path, '[data]\nsize = "tiny"\n')
    with pytest.raises(FcitError, match="leave one of them out"):
        config.load(sized, ["data.root=mine"])
    assert config.load(sized, ["data.root=mine", "data.size="]).data.size == ""


def test_the_mini_recipes_differ_in_their_setting_alone() -> None:
    found = [config.load(path) for path in RECIPES if path.parent.name == "mini"]
    assert {got.setting.name for got in found} == {"task-hom", "task-het", "cap-hom", "cap-het"}
    tables = [config.to_table(got) | {"setting": None} for got in found]
    assert all(table == tables[0] for table in tables)
    assert {got.data.size for got in found} == {"small"}


def test_a_resolved_config_reads_back_the_same(tmp_path) -> None:
    got = config.load(recipe(tmp_path, '[setting]\norder = ["IconQA"]\n'), ["method.tau=0.7"])
    table = config.to_table(got)
    assert table["method"]["temperature"] == 0.05  # defaults are written out
    config.write(tmp_path / "resolved.toml", table | {"versions": {"fcit": "0"}})
    again = config.load(tmp_path / "resolved.toml")
    assert config.to_table(again) == table


def test_an_optimizers_options_are_reached_and_written_out(tmp_path) -> None:
    changes = ["federation.optimizer=fedadam", "federation.optimizer_options.tau=1"]
    got = config.load(recipe(tmp_path, ""), [*changes, "federation.average=product"])
    optimizer = got.federation.build_optimizer()
    assert (type(optimizer).__name__, optimizer.tau) == ("Fedadam", 1.0)  # type: ignore[attr-defined]
    table = config.to_table(got)["federation"]
    assert table["average"] == "product"
    assert table["optimizer_options"] == {"lr": 1e-3, "beta1": 0.9, "beta2": 0.99, "tau": 1.0}
    config.write(tmp_path / "resolved.toml", config.to_table(got))
    assert config.to_table(config.load(tmp_path / "resolved.toml")) == config.to_table(got)


def test_a_methods_file_name_is_its_name() -> None:
    assert {"finetune", "disco", "zeroshot", "individual", "joint", "multitask"} <= set(names())
    for name in names():
        assert find(name).__name__.lower() == name.replace("_", "")


OLD = """
[model]
features = false
[federation]
minimum = 3
absurd = 7.0
lying = 0.1
[privacy]
repeatable = false
[evaluation]
ahead = false
general = 5
[method]
name = "lwf"
softening = 3.0
distillation = 0.5
"""


def test_an_old_name_loads_with_one_line_that_says_the_new_one(tmp_path, capsys) -> None:
    path = recipe(tmp_path, OLD)
    got = config.load(path)
    assert (got.federation.min_samples, got.federation.outlier_factor) == (3, 7.0)
    assert (got.federation.byzantine_share, got.privacy.seeded_noise) == (0.1, False)
    assert (got.evaluation.forward_transfer, got.evaluation.general_questions) == (False, 5)
    method = got.method
    assert (method.distillation_temperature, method.distillation_weight) == (3.0, 0.5)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: model.features is now model.cache_features, ")
    assert "method.softening is now method.distillation_temperature" in line
    table = config.to_table(got)
    assert "absurd" not in table["federation"]
    config.write(tmp_path / "config.toml", table)
    assert config.to_table(config.load(tmp_path / "config.toml")) == table
    assert not capsys.readouterr().err
    assert config.load(path, method="hide").method.name == "hide"  # lwf's keys are left out


def test_a_change_under_an_old_name_overrules_the_recipe(tmp_path, capsys) -> None:
    path = recipe(tmp_path, "[federation]\noutlier_factor = 5.0\n")
    changes = ["federation.absurd=9", "method.sharpness=0.2", "method.name=hide"]
    got = config.load(path, changes)
    assert got.federation.outlier_factor == 9.0
    assert config.to_table(got)["method"]["temperature"] == 0.2
    assert "federation.absurd is now federation.outlier_factor" in capsys.readouterr().err
    got = config.validate({"method": {"name": "ewc", "consolidation": 2.0}}, "a table")
    assert got.method.ewc_lambda == 2.0
    said = capsys.readouterr().err
    assert said == "a table: method.consolidation is now method.ewc_lambda\n"


def test_an_old_and_a_new_name_together_are_an_error(tmp_path) -> None:
    both = recipe(tmp_path, "[federation]\nabsurd = 1.0\noutlier_factor = 5.0\n")
    with pytest.raises(FcitError, match=r"r\.toml: federation\.absurd is now federation\.outlier"):
        config.load(both)


def test_a_runs_config_of_an_older_version_loads_in_silence(tmp_path, capsys) -> None:
    text = "[federation]\nabsurd = 1.0\n[versions]\nfcit = '0'\n"
    assert config.load(recipe(tmp_path, text)).federation.outlier_factor == 1.0
    assert not capsys.readouterr().err


def test_a_run_made_before_setting_split_was_dealt_per_dataset(tmp_path) -> None:
    """A task of one dataset is dealt alike either way, so such runs compare with new ones."""
    own = "tasks = {both = ['DVQA', 'IconQA']}\n[[setting.stages]]\nslots = ['both']\n"
    for name, more, then in (
        ("cap-hom", "", "per-dataset"),
        ("task-hom", "", "pooled"),
        ("task-mine", own, "per-dataset"),
    ):
        old = recipe(tmp_path, f"[setting]\nname = '{name}'\n{more}[versions]\nfcit = '0'\n")
        assert config.load(old).setting.split == then
    assert config.load(recipe(tmp_path, "[setting]\nname = 'cap-hom'\n")).setting.split == "pooled"


def test_an_l2p_run_made_before_start_from_says_how_its_pool_was_drawn(tmp_path) -> None:
    """Or reports would take it for a repetition of runs with another start."""
    text = "[method]\nname = 'l2p'\n"
    old = config.load(recipe(tmp_path, text + "[versions]\nfcit = '0'\n")).method
    assert (old.start_from, old.start_range) == ("normal", 0.02)
    assert config.load(recipe(tmp_path, text)).method.start_from == "uniform"


def test_a_disco_run_made_before_at_limit_goes_on_leaving_clients_out(tmp_path) -> None:
    text = "[method]\nname = 'disco'\nsubspaces = 3\n"
    old = config.load(recipe(tmp_path, text + "[versions]\nfcit = '0'\n")).method
    assert (old.max_subspaces, old.at_limit) == (3, "skip")
    assert config.load(recipe(tmp_path, text)).method.at_limit == "join"


COUNTS = [
    (title.removeprefix("method: "), key.name)
    for title, keys in sections()
    for key in keys
    if key.default.isdigit() and key.name not in ("seed", "federation.workers", "rounds")
]


@pytest.mark.parametrize(("section", "key"), COUNTS, ids="/".join)
def test_a_count_beyond_reason_is_named(tmp_path: Path, section: str, key: str) -> None:
    method = section if section in names() else None
    with pytest.raises(FcitError, match=f"{key}: .*less than|{key.partition('.')[2]} .*exceeds"):
        config.load(recipe(tmp_path, ""), [f"{key}={10**20}"], method)


def test_a_stages_counts_beyond_reason_are_named(tmp_path: Path) -> None:
    text = 'name = "mine"\n[[setting.stages]]\nslots = ["DVQA"]\n'
    for counts, said in (
        ("rounds = 9999999999", "less than"),
        ("clients = 10000000000", "at most"),
    ):
        with pytest.raises(FcitError, match=f"setting.stages, no. 1.{counts[:6]}.*{said}"):
            config.load(recipe(tmp_path, f"[setting]\n{text}{counts}"))
