"""Every command and every piece of code in every document works as it stands."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

import documents
import fcit.report.heatmaps  # before its figures are replaced
import fcit.report.style
import hub
from documents import PAGES, RECIPES, ROOT, SCRIPTS, Reader, Step, name
from fcit import methods
from fcit.recipe import keys
from fcit.recipe.config import load

NOT_RUN = {
    **dict.fromkeys(
        ("mkdir -p runs", "cp -r benchmarks/results"),
        "copies kept runs; tests/test_kept_runs.py reads the runs themselves",
    ),
    "make test": "runs these tests",
    "pip install": "needs a package index",
    "pip download": "needs a package index",
    "export": "for `flwr run`",
    "sh benchmarks/gpu/run.sh": "needs a GPU; a slow test of tests/test_speed.py rehearses it on a CPU",
    "flwr run": "needs Ray; tests/flower/test_flwr_run.py runs it",
    "fcit data fetch": "needs the hub; tests/benchmark/test_fetch.py serves one",
    "fcit export runs/first --subspace 0 --push": "needs the hub; tests/use/test_push.py serves one",
    "docker": "needs Docker; tests/test_examples.py reads the files",
    "fcit deploy init demo": "for containers; tests/test_examples.py writes its folders",
    "sbatch": "needs Slurm; tests/test_examples.py runs the script",
    "flwr build": "writes a bundle; tests/test_examples.py makes it",
    "HF_HOME=$PWD/huggingface /srv/fcit/venv/bin/hf download": "needs the hub",
    "HF_HUB_OFFLINE=1 ./start": "needs the hub",
    "./": "a federation of processes; tests/flower/test_deployment.py starts one",
    "FCIT_RUN=$PWD/second ./run": "a federation of processes",
    "/srv/fcit/venv/bin/fcit": "a deployment's finished run",
    **dict.fromkeys(
        ("useradd", "python3 -m venv", "chown", "cp", "systemctl"), "root's work on a machine"
    ),
    ".venv/bin/python benchmarks/": "takes minutes to hours",
    "python tools/": "takes minutes, or writes a page",
    "fcit demo": "takes minutes; tests/cli/test_first_steps.py shortens its recipe",
    "fcit import-reference": "needs the reference's checkpoint; tests/runs/test_imported.py makes one",
    "fcit bench": "takes minutes; tests/bench runs it",
    "fcit sweep": "takes minutes or hours, except with --dry-run",
    "fcit report runs/comparison": "reads a sweep that takes hours",
    "fcit report runs/compare": "reads a sweep of twenty minutes",
    "fcit report runs/tuning": "reads a sweep that takes hours",
    "fcit report runs/router": "reads a sweep of an hour",
    "fcit report runs/ablations": "reads a sweep of an hour",
    "fcit run recipes/paper/": "needs the official data, the hub and a GPU",
    "fcit run recipes/real/": "needs the official data and the hub, most of them a GPU",
    "fcit run recipes/ucit/": "needs UCIT's data, the hub and a GPU; tests/recipe/test_neighbours.py",
    "fcit run recipes/mllm-dcl/": "needs MLLM-DCL's data, the hub and a GPU; as UCIT's",
    **dict.fromkeys(
        (
            ".venv/bin/python examples/real/",
            "fcit data check data/real",
            "fcit plan examples/real/",
            "fcit run examples/real/",
            "fcit report runs/real/",
            ".venv/bin/pip install gguf",
        ),
        "needs 0.6 GB of packages; tests/test_real_example.py tests the parts",
    ),
    "fcit data check /data/": "needs the neighbours' data; tests/recipe/test_neighbours.py has some",
    "fcit run recipes/mini/": "takes many seconds even in small; the slow test runs it",
}
"""Commands that are not run here, by how they begin, and why. What they name has to exist."""

NOT_EXECUTED = {
    "docs/models.md": "converts models; tests/models/test_llava_original.py and test_folders.py do so",
}
"""Pages whose Python code is not run here, and why."""

SLOW = ("docs/commands.md", "docs/mini.md", "examples/", "recipes/own.toml", "recipes/mini/")
"""Documents that only the slow test follows; of these the fast one looks up what they name."""

FOREIGN = {"--node-config", "--name"}
"""Options of other programs, and of the scripts of a deployment."""

HUB = ROOT / "docs" / "from-the-hub.md"
"""The page that is followed with a hub."""

WITH_CODE = [path for path in [*PAGES, *RECIPES, *SCRIPTS] if documents.steps(path)]


def exception(step: Step) -> str:
    """How the entry of NOT_RUN begins that excepts a command, or ""."""
    fcit = step.text.startswith(".venv/bin/fcit")
    text = step.text.removeprefix(".venv/bin/") if fcit else step.text
    if "--dry-run" in text:
        return ""
    return next((begin for begin in NOT_RUN if text.startswith(begin)), "")


@pytest.fixture(scope="module")
def runs() -> dict[str, Path]:
    """Finished runs, by their commands: a later document that gives the same command gets a copy."""
    return {}


def follow(reader: Reader, steps: list[Step], also: str = "") -> None:
    """Do all steps but the exceptions, of which `also` is none here. Reports have empty figures, which
    take most of their time; tests/report draws them."""
    with reader.reading(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcit.report.style, "to_svg", lambda figure: "<svg/>")
        patch.setattr(fcit.report.style, "save_png", lambda figure, path: path.touch())
        try:
            for step in steps:
                if step.language == "sh" and exception(step) not in ("", also):
                    documents.parse(step)
                elif not (step.language == "python" and step.document in NOT_EXECUTED):
                    reader.follow(step)
        finally:
            reader.close()


# -- code ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [path for path in WITH_CODE if not name(path).startswith(SLOW) and path != HUB],
    ids=name,
)
def test_a_document_works_as_it_stands(path: Path, tmp_path: Path, runs: dict[str, Path]) -> None:
    follow(Reader(tmp_path, runs), documents.steps(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in WITH_CODE if name(path).startswith(SLOW)], ids=name
)
def test_a_longer_document_works_as_it_stands(
    path: Path, tmp_path: Path, runs: dict[str, Path]
) -> None:
    follow(Reader(tmp_path, runs), documents.steps(path), "fcit run recipes/mini/")


def test_the_recipe_for_the_benchmarks_data_is_for_as_many_clients_as_its_published_split() -> None:
    """Its published split has 50 clients, and fcit data fetch brings it along."""
    (text,) = (step.text for step in documents.steps(HUB) if step.language == "toml")
    recipe, paper = tomllib.loads(text), load(ROOT / "recipes" / "paper" / "task-hom.toml")
    assert recipe["federation"]["clients"] == paper.federation.clients == 50


@pytest.mark.slow
def test_from_an_empty_folder_and_a_hub_to_an_answer(
    tmp_path: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "clone", Path.mkdir)
    monkeypatch.setitem(documents.GIVEN, "photo.png", documents.photo)
    # this hub has 40 records of each dataset, and no published split for 50 clients
    monkeypatch.setattr(documents, "SMALL", (*documents.SMALL, "federation.clients=10"))
    with hub.serving(tmp_path / "cache") as served:
        files = hub.files_below(suite)
        texts = hub.below(files, "instructions/ArxivQA/", "all/ArxivQA/")
        texts |= hub.below(files, "instructions/ImageNet-R/", "all/ImageNet-R/")
        served.files["MLLM-CL/FCIT"] = {"instruction/instruction_all.zip": hub.zipped(texts)}
        served.files["HaiyangGuo/UCIT"] = {
            "UCIT/ImageNet-R/ImageNet-R.zip": hub.zipped(hub.below(files, "datasets/ImageNet-R/"))
        }
        served.files["MMInstruction/ArxivQA"] = {
            "images.tgz": hub.tarred(hub.below(files, "datasets/ArxivQA/"))
        }
        reader = Reader(tmp_path / "empty", {})
        with reader.reading():
            try:
                for step in documents.steps(HUB):
                    reader.follow(step)
            finally:
                reader.close()
    made = {path.name for path in (tmp_path / "empty").iterdir()}
    assert made == {"my-first.toml", "my-fcit", "runs", "my-adapter", "photo.png"}
    report = tmp_path / "empty" / "runs" / "mine" / "report"
    assert (report / "report.html").is_file() or list(report.glob("*.html"))


@pytest.mark.slow
def test_the_examples_of_the_help_texts_work(tmp_path: Path, runs: dict[str, Path]) -> None:
    follow(Reader(tmp_path, runs), documents.helped())


def all_commands() -> list[Step]:
    told = [step for path in WITH_CODE for step in documents.steps(path)]
    return [step for step in [*told, *documents.helped()] if step.language == "sh"]


def test_what_every_command_names_exists() -> None:
    for step in all_commands():
        documents.parse(step)


def test_every_exception_is_needed() -> None:
    assert {exception(step) for step in all_commands()} - {""} == set(NOT_RUN)
    assert {step.document for path in PAGES for step in documents.steps(path)} >= set(NOT_EXECUTED)


def test_every_command_is_shown() -> None:
    shown = [step.text.removeprefix(".venv/bin/") for step in all_commands()]
    for words, command in documents.every_command():
        if not hasattr(command, "commands"):
            assert any(text.startswith(" ".join(["fcit", *words])) for text in shown), words


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_no_command_hides_from_this_test(path: Path) -> None:
    """Commands stand in fenced blocks of the language sh: not in other blocks, and not indented."""
    text = path.read_text("utf-8")
    for block in documents.blocks(path):
        assert block.language in ("", "sh", "python", "toml", "json", "bibtex"), str(block)
        if block.language == "":
            assert not any(map(documents.program, block.text.splitlines())), str(block)
    outside = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.S | re.M)
    for line in re.findall(r"^    ( *\S.*)$", outside, re.M):
        assert not documents.program(line), line


# -- what a sentence names -------------------------------------------------------------------------


def inline(path: Path) -> list[str]:
    """The words and phrases in a page's sentences that are set as code."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text("utf-8"), flags=re.S | re.M)
    codes = (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text))
    typed = r"^(?:[A-Z_]+=\S+ )*/srv/fcit/venv/bin/(?=fcit )"  # in a deployment's folder
    return [re.sub(typed, "", code) for code in codes]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_commands_and_options_in_a_sentence_exist(path: Path) -> None:
    known = {" ".join(words): command for words, command in documents.every_command()}
    options = {
        option for one in known.values() for given in one.params for option in given.opts
    } | {"--help"}
    for script in SCRIPTS:
        options |= set(re.findall(r'"(--[a-z-]+)"', script.read_text("utf-8")))
    for code in inline(path):
        if code.startswith("fcit "):
            words = code.split()[1:]
            named = next((n for n in (2, 1) if " ".join(words[:n]) in known), 0)
            assert named or words[0].startswith("-"), code
            own = {
                option for given in known[" ".join(words[:named])].params for option in given.opts
            }
            told = {word.split("=")[0] for word in words if re.match(r"--\w", word)}
            assert told <= own | {"--help"}, code
        elif re.match(r"--[a-z]", code):
            assert code.split()[0].split("=")[0] in options | FOREIGN, code
        elif re.match(r"make [a-z]", code):
            documents.parse(Step(name(path), 1, "sh", re.sub(r"\w+=\S+ ", "", code)))
        documents.parse_extras(code)


@cache
def recipe_keys() -> set[str]:
    """The keys of a recipe, and the members of the `model` that docs/add-a-method.md describes."""
    known = {key.name for _, section in keys.sections() for key in section}
    known |= {f"model.{member}" for member in dir(methods.Model)}
    return known | {f"model.{member}" for member in vars(methods.Model)["__annotations__"]}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_recipe_keys_in_a_sentence_exist(path: Path) -> None:
    sections = "data|model|setting|federation|privacy|training|method|evaluation|tracking"
    old = path.parent.name == "decisions" or path.name == "log.md"  # they speak of their own time
    for code in inline(path):
        for key in re.findall(rf"(?<![\w./])((?:{sections})\.[a-z_]+)(?![\w(/.])", code):
            assert old or key in recipe_keys() or Path(key).suffix in (".py", ".toml", ".png"), code


def test_the_folder_of_a_reader_is_that_of_a_clone(tmp_path: Path) -> None:
    documents.clone(tmp_path)
    for path in [*RECIPES, *SCRIPTS, *PAGES[2:]]:
        if path.is_relative_to(ROOT / "src"):
            continue
        assert (tmp_path / name(path)).is_file()
