"""Data of a hub into a data folder of our layout: the field's benchmarks, any data folder, or tables.

Downloads stay in the Hugging Face cache. The folder appears whole or not at all.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from fcit.benchmark import check, datasets, layout, published
from fcit.benchmark.fetch import archives, hub, tables
from fcit.benchmark.fetch.hub import Repository
from fcit.benchmark.fetch.origins import TABLES, Origin, origin
from fcit.benchmark.fetch.wanted import Wanted, owners, wanted
from fcit.files import below, check_new_folder, folder_aside, write_text
from fcit.types import FcitError, did_you_mean
from fcit.watch import Silent, Watch

TEXTS = (".json", ".jsonl", ".toml")
NO_COLUMNS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Lack:
    """Images of a dataset that a person has to bring."""

    dataset: str
    images: int
    of: int
    page: str
    folder: str
    """Below the data folder, where they go."""


@dataclass
class Fetched:
    """What was fetched, and what is missing."""

    report: check.Report = field(default_factory=check.Report)
    """Without the images of `lacks`."""
    parts: list[tuple[str, Repository]] = field(default_factory=list[tuple[str, Repository]])
    """What each repository gave."""
    lacks: list[Lack] = field(default_factory=list[Lack])
    absent: list[str] = field(default_factory=list[str])
    """Datasets without records."""


def fetch(
    name: str,
    out: Path,
    only: Sequence[str] = (),
    columns: Mapping[str, str] = NO_COLUMNS,
    watch: Watch | None = None,
) -> Fetched:
    """Make the data folder `out` of a benchmark (fcit, ucit, mllm-dcl) or of a dataset repository.

    A repository is one of data folders (`layout`), or of parquet tables with an image, a question and an
    answer, whose columns `columns` may name. `only`: a few of its datasets. What the folder holds is
    checked. Raises FcitError where the hub, an archive or a table is at fault.
    """
    watch, done = watch or Silent(), Fetched()
    check_new_folder(out)
    if name in TABLES and (odd := [one for one in only if one not in TABLES[name]["images"]]):
        known = TABLES[name]["images"]
        raise FcitError(
            f"--only {odd[0]}: {name} has no such dataset{did_you_mean(odd[0], known)}; "
            f"it has {', '.join(known)}"
        )
    if name not in TABLES and "/" not in name:
        raise FcitError(
            f"{name}: there are {', '.join(TABLES)}{did_you_mean(name, TABLES)}; or name a dataset "
            "repository of the hub, OWNER/NAME"
        )
    place = origin(name, tuple(only))
    repository = hub.look(place.repository)
    with folder_aside(out) as root:
        if name not in TABLES and (files := tables.of(repository.sizes, only)):
            titles = tables.write(root, repository, files, columns, watch)
            done.parts.append((", ".join(titles), repository))
        else:
            if columns:
                raise FcitError(f"--column: {name} holds no tables, so it has no columns")
            _fetch(root, place, repository, only, done, watch)
        done.report = check.check(root, watch=watch)
        if done.lacks:  # which say what images are missing
            done.report.problems[:] = [
                problem
                for problem in done.report.problems
                if not (problem.what.startswith("image ") and problem.what.endswith(": is missing"))
            ]
        write_text(root / "SOURCES.md", _sources(done))
    return done


def _fetch(
    root: Path,
    place: Origin,
    repository: Repository,
    only: Sequence[str],
    done: Fetched,
    watch: Watch,
) -> None:
    """Fetch records, then the images that they name, from one repository after the other."""
    files = [file for file in repository.sizes if _of_interest(file, place, place.images or only)]
    packed = [file for file in files if archives.stem(file)]
    texts = [file for file in files if Path(file).suffix in TEXTS]
    by_depth = sorted([*packed, *texts], key=lambda file: (file.count("/"), file))
    paths = hub.download(repository, by_depth, watch)
    _records(root, place, repository, paths, only, watch)
    names = datasets.present(root)
    if not names:
        raise FcitError(
            f"{repository.name}: holds no records that fcit knows; see docs/add-a-dataset.md"
        )
    for folder, task in [*published.folders(root)]:  # of a task whose datasets were not asked for
        if task and not set(task.datasets) <= set(names):
            shutil.rmtree(folder)
    done.absent = [name for name in place.images if name not in names]
    done.parts.append((f"records of {', '.join(names)}", repository))
    images = wanted(root, names, exact=not place.images)
    if _images(repository, place.titles, images, files, paths, watch):
        done.parts.append(("images", repository))
    for other in dict.fromkeys(filter(None, map(place.elsewhere, place.images))):
        mine = [n for n in names if place.elsewhere(n) == other and images.lacking(n)]
        if not mine or other == repository.name:
            continue
        there = hub.look(other)
        some = [file for file in there.sizes if Path(file).suffix not in TEXTS]
        some = [file for file in some if owners(_full(file), place.titles) & {*mine}] or some
        some_paths = hub.download(there, [file for file in some if archives.stem(file)], watch)
        of = {name: place.titles[name] for name in mine}
        if _images(there, of, images, some, some_paths, watch):
            done.parts.append((f"images of {', '.join(mine)}", there))
    for name in names:
        if (count := images.lacking(name)) and place.images:
            dataset = datasets.find(name, root)
            start = next(iter(dataset.image_folders(root))) / dataset.images
            folder = start.relative_to(root).as_posix()
            of_all = len(images.paths[name])
            done.lacks.append(Lack(name, count, of_all, place.page(name), folder))


def _of_interest(file: str, place: Origin, names: Sequence[str] | Mapping[str, str]) -> bool:
    """Whether a file may be of the wanted datasets: it names one of them, or none of the benchmark's."""
    if any(fnmatch(file, pattern) for pattern in place.leave):
        return False
    named = owners(_full(file), place.titles)
    return not named or bool(named & set(names))


def _full(file: str, member: str = "") -> tuple[str, ...]:
    """The parts of a file's path, an archive being a folder."""
    return PurePosixPath(archives.stem(file) or file, member).parts


def _entries(
    repository: Repository, paths: Mapping[str, Path], watch: Watch
) -> Iterator[tuple[tuple[str, ...], archives.Member, archives.Unpacking]]:
    """The files in the archives among the downloaded ones, and the other ones, with their full paths."""
    with watch.bar(f"{repository.name}: files read", len(paths)) as step:
        for at, (file, path) in enumerate(paths.items(), 1):
            title = f"{repository.name}: {file}"
            unpacking = archives.Unpacking(title, path.stat().st_size)
            if archives.stem(file):
                for member in archives.members(path, title):
                    if "__MACOSX" not in member.name:
                        yield _full(file, member.name), member, unpacking
            else:
                with path.open("rb") as opened:
                    yield _full(file), archives.Member(file, opened), unpacking
            step(at)


def _records(
    root: Path,
    place: Origin,
    repository: Repository,
    paths: Mapping[str, Path],
    only: Sequence[str],
    watch: Watch,
) -> None:
    """Write the record files, the dataset.toml files and the published split of a repository."""
    files = set[str]().union(*place.records.values())
    names, seen = repository.name.rsplit("/", 1)[-1], set[str]()
    asked = {name: {name, datasets.find(name).folder} for name in only}
    wanted_folders, with_records = set[str]().union(*asked.values()), set[str]()
    if place.images_in:
        (root / place.images_in).mkdir(parents=True)
    for parts, member, unpacking in _entries(repository, paths, watch):
        *folders, file = parts
        seen.update(folders)
        if Path(file).suffix not in TEXTS:
            continue
        folder = folders[-1] if folders else names
        with_records.add(folder)
        if layout.PARTITIONS in parts:
            goes = root.joinpath(*parts[parts.index(layout.PARTITIONS) :])
        elif f"{folder}/{file}" in files or not (
            place.images or (only and folder not in wanted_folders)
        ):
            goes = root / place.records_in / folder / file
        else:
            continue
        if not goes.exists():
            unpacking.write(member, goes)
    if place.images:
        return
    if odd := [name for name, folders in asked.items() if not folders & with_records]:
        raise FcitError(
            f"--only {odd[0]}: {repository.name} has no such folder of records; it has "
            f"{', '.join(sorted(with_records)) or 'none'}"
        )
    if not seen & set(layout.INSTRUCTIONS) and (root / place.records_in).is_dir():
        for path in [*(root / place.records_in).iterdir()]:  # datasets' folders in the root
            path.rename(root / path.name)
        (root / place.records_in).rmdir()
        if not seen & set(layout.IMAGES):
            (root / place.images_in).rmdir()
    parent = layout.instructions(root)
    folders = [below(parent, name) for name in layout.folders(root)]
    kept = {folder for folder in folders if layout.holds_records(folder)}
    for path in [*parent.iterdir()] if parent.is_dir() else ():
        if path not in kept and path.name not in (*layout.IMAGES, layout.PARTITIONS):
            shutil.rmtree(path)


def _images(
    repository: Repository,
    titles: Mapping[str, set[str]],
    images: Wanted,
    files: Sequence[str],
    paths: Mapping[str, Path],
    watch: Watch,
) -> bool:
    """Write the wanted images among a repository's files; return whether it has any.

    titles: by dataset, what it and its folders are called. paths: the files that are downloaded, all
    archives among them.
    """
    goes: dict[Path, str] = {}
    for file in files:
        parts = _full(file)
        if file not in paths and (path := images.match(parts, owners(parts, titles))):
            goes[path] = file
    there = hub.download(repository, [*goes.values()], watch) if goes else {}
    for path, file in goes.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(there[file], path)
    any_here = bool(goes)
    some = {file: paths[file] for file in files if archives.stem(file)}
    for parts, member, unpacking in _entries(repository, some, watch) if some else ():
        if path := images.match(parts, owners(parts, titles)):
            unpacking.write(member, path)
            any_here = True
    return any_here


def _sources(done: Fetched) -> str:
    """The text of SOURCES.md."""
    lines = ["# Sources", "", "| what | repository | commit | licence |", "|---|---|---|---|"]
    lines += [f"| {what} | {r.name} | {r.commit} | {r.licence} |" for what, r in done.parts]
    lines += ["", "Images keep the licences of those who made them."]
    lines += [
        f"* {lack.dataset}: {lack.images} of {lack.of} images were not here; they are at {lack.page}"
        for lack in done.lacks
    ]
    return "\n".join(lines) + "\n"
