"""A dataset repository of a hub: what it has, and its files in the Hugging Face cache."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fcit.benchmark.fetch.archives import inside
from fcit.types import FcitError, first_line
from fcit.watch import Watch

LARGE = 8 << 20
"""Files of so many bytes are downloaded one after the other, smaller ones at the same time."""
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Repository:
    """A dataset repository at one of its commits."""

    name: str
    commit: str
    licence: str
    """As its card says."""
    sizes: dict[str, int]
    """The bytes of each file, by path."""


@contextmanager
def asking(name: str) -> Iterator[None]:
    """Raises FcitError, one line that names the repository, for whatever goes wrong with the hub."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
        return
    except FcitError:
        raise
    except HFValidationError:
        reason = "is not a repository name; write OWNER/NAME"
    except GatedRepoError:
        reason = f"ask for access on {constants.ENDPOINT}/{name}, then log in with hf auth login"
    except RepositoryNotFoundError:
        reason = f"no such repository on {constants.ENDPOINT} that you may use (hf auth login)"
    except LocalTokenNotFoundError:
        reason = f"log in to {constants.ENDPOINT} first: hf auth login"
    except OfflineModeIsEnabled:
        reason = "the hub cannot be asked while HF_HUB_OFFLINE is set"
    except HfHubHTTPError as error:
        reason = f"{constants.ENDPOINT} answers: {first_line(error)}"
    except Exception as error:  # of the network, of which the hub's library lets many kinds through
        if isinstance(error, OSError) and error.errno and error.filename:
            raise  # of this machine's disk
        reason = f"{constants.ENDPOINT} cannot be asked: {first_line(error)}"
    raise FcitError(f"{name}: {reason}") from None


def look(name: str) -> Repository:
    """What a dataset repository has now. Raises FcitError where it cannot be seen."""
    from huggingface_hub import HfApi

    with asking(name):
        api = HfApi()
        info = api.dataset_info(name)
        commit = info.sha or "main"
        entries = api.list_repo_tree(name, recursive=True, revision=commit, repo_type="dataset")
        sizes = {
            inside(entry.path, name): size
            for entry in entries
            if (size := getattr(entry, "size", None))
        }
        said = getattr(info.card_data, "license", None) or ""
        licence = said if isinstance(said, str) else ", ".join(map(str, said))
        return Repository(name, commit, licence or "none named on its card", sizes)


def download(repository: Repository, files: Sequence[str], watch: Watch) -> dict[str, Path]:
    """Files of a repository, by path, in the Hugging Face cache: those that are there are not loaded
    again, and an interrupted one goes on where it stopped."""
    from huggingface_hub import hf_hub_download

    sizes, paths, done = repository.sizes, dict[str, Path](), _Bytes()
    total = sum(sizes[file] for file in files)
    with watch.bar(f"{repository.name} (MB)", max(1, round(total / MEGABYTE))) as step:

        def get(file: str) -> None:
            begun = done.of(file, lambda: step(done.sum / MEGABYTE))
            with asking(repository.name):
                paths[file] = Path(
                    hf_hub_download(
                        repository.name,
                        file,
                        repo_type="dataset",
                        revision=repository.commit,
                        tqdm_class=begun,
                    )
                )
            done.ended(file, sizes[file])
            step(done.sum / MEGABYTE)

        for file in files:
            if sizes[file] >= LARGE:
                get(file)
        with ThreadPoolExecutor(8) as pool:
            try:
                for _ in pool.map(get, [file for file in files if sizes[file] < LARGE]):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return {file: paths[file] for file in files}


class _Bytes:
    """How many bytes of some files there are."""

    def __init__(self) -> None:
        self.sum = 0.0
        self.each: dict[str, float] = {}

    def add(self, file: str, count: float) -> None:
        self.each[file] = self.each.get(file, 0) + count
        self.sum += count

    def ended(self, file: str, size: int) -> None:
        """Whatever was counted before, a file is there."""
        self.add(file, size - self.each.get(file, 0))

    def of(self, file: str, moved: Callable[[], None]) -> Any:
        """What the hub's library takes for the bars of one file: a class with tqdm's methods."""
        add = self.add

        class FileBar:
            def __init__(self, *given: Any, **options: Any) -> None:
                self.n, self.total = options.get("initial") or 0, options.get("total")
                add(file, self.n)

            def update(self, n: float | None = 1) -> None:
                self.n += n or 0
                add(file, n or 0)
                moved()

            def update_transfer(self, n: float | None = 1) -> None:
                """What came over the network; `update` counts what is on the disk."""

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *fault: object) -> None:
                pass

            def __getattr__(self, name: str) -> Callable[..., None]:
                return lambda *given, **options: None

        return FileBar
