"""The examples for other people's machines: containers, a cluster, Flower. What they name exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import documents
from fcit.recipe import config

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "examples" / "docker"


def test_the_image_is_made_of_files_and_extras_that_exist() -> None:
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text("utf-8"), flags=re.M)
    told = [line.split(" ", 1) for line in text.splitlines()]
    assert {word for word, _ in told} <= {"FROM", "COPY", "RUN", "ENV", "WORKDIR", "CMD"}
    assert told[0] == ["FROM", "python:3.12-slim"]
    assert "FCIT_CACHE" not in text, "the scripts keep features in the client's folder"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "Programming Language :: Python :: 3.12" in project["classifiers"]
    copied = {one for word, rest in told if word == "COPY" for one in rest.split()[:-1]}
    assert copied and all((ROOT / one).exists() for one in copied)
    assert {project["readme"], *project["license-files"], "src", "constraints.txt"} <= copied
    assert "recipes" in copied  # src/fcit/recipes is a link to it
    (run,) = (rest for word, rest in told if word == "RUN")
    (extras,) = re.findall(r"/source\[([\w,]+)\]", run)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (command,) = (yaml.safe_load(rest) for word, rest in told if word == "CMD")
    documents.parse_fcit(command[1:]) if command[1:] != ["--help"] else None
    assert command[0] in project["scripts"]


def test_the_services_are_those_that_deploy_init_writes(tmp_path: Path) -> None:
    deploy = pytest.importorskip("fcit.flower.deploy")
    (line,) = (
        step
        for step in documents.steps(DOCKER / "README.md")
        if step.text.startswith("fcit deploy init")
    )
    given = documents.parse_fcit(line.words[1:])
    assert (str(given["out"]), *given["host"]) == ("examples/docker/my-federation", "server")
    loaded = config.load(Path("demo"), given["changes"])
    deploy.write(tmp_path, given["host"], loaded, given["install"])
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))["services"]
    assert set(services) == {path.name for path in tmp_path.iterdir() if path.is_dir()}
    for name, service in services.items():
        (volume,) = service["volumes"]
        assert volume == f"./my-federation/{name}:{service['working_dir']}"
        (script,) = service["command"]
        text = (tmp_path / name / script).read_text("utf-8")
        assert os.access(tmp_path / name / script, os.X_OK)
        assert all(f"${{{key}:-" in text for key in service.get("environment", {}))
        assert service["working_dir"] == f"{given['install']}/{name}"
    for step in documents.steps(DOCKER / "README.md"):
        if "exec server" in step.text:
            script = re.findall(r"\./(\w+)", step.text.split("exec server ")[1])[0]
            assert (tmp_path / "server" / script).is_file()


def test_a_slurm_job_begins_a_run_and_then_continues_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "fcit").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "bin" / "fcit").chmod(0o700)
    script = ROOT / "examples" / "slurm" / "fcit.sbatch"
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def said(*words: str) -> list[str]:
        done = subprocess.run(
            ["bash", script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    (line,) = documents.steps(script.parent / "README.md")
    words = shlex.split(line.text)[2:]
    assert documents.parse_fcit(said(*words))["changes"] == ("data.root=/data/FCIT",)
    (tmp_path / words[1]).mkdir(parents=True)
    (tmp_path / words[1] / "config.toml").touch()
    given = documents.parse_fcit(said(*words, "--method", "finetune"))
    assert given["resume"] is True
    assert given["method"] == "finetune"  # which fcit refuses where the run has another
    options = re.findall(r"^#SBATCH (.*)$", script.read_text("utf-8"), re.M)
    assert options and all(re.fullmatch(r"--[a-z-]+(=\S+)?", option) for option in options)


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # of Flower
def test_flower_accepts_the_app() -> None:
    build = pytest.importorskip("flwr.cli.build")
    from flwr.cli.config_utils import load_and_validate

    app = ROOT / "examples" / "flower" / "app"
    table, warnings = load_and_validate(app / "pyproject.toml")
    assert not warnings and table["tool"]["flwr"]["app"]["fab-format-version"] == 1
    bundle, metadata = build.build_fab_from_files(build.collect_files(app))
    assert metadata.fab_format_version == 1 and metadata.flwr_version_target == "1.41.0"
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        assert {"pyproject.toml", "fcit_app/__init__.py", "LICENSE.md"} <= set(archive.namelist())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (needs,) = project["optional-dependencies"]["flower"]
    assert needs == "flwr==1.41.*" and table["project"]["dependencies"][1] == "flwr>=1.41,<1.42"
