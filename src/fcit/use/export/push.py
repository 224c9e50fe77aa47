"""An exported folder to a model repository of a hub."""

from pathlib import Path

from fcit.benchmark.fetch.hub import asking
from fcit.files import write_text
from fcit.types import FcitError


def check(name: str) -> None:
    """Raise FcitError where a repository cannot be pushed to: its name, the network, or no login."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    with asking(name):
        validate_repo_id(name)
        HfApi().whoami()


def push(folder: Path, name: str) -> str:
    """Upload an exported folder, and return the address of its page.

    A new repository is private; its page makes it public. The card gets the line that downloads it.
    Raises FcitError where the hub refuses, and for a repository with files that this export has not.
    """
    from huggingface_hub import HfApi, constants

    card = folder / "README.md"
    text = card.read_text("utf-8")
    load = (
        f"`hf download {name} --local-dir my-copy` makes a copy, in which the following works.\n\n"
    )
    with asking(name):
        api = HfApi()
        api.create_repo(name, private=True, exist_ok=True)
        ours = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
        others = sorted({*api.list_repo_files(name)} - ours - {".gitattributes"})
        if others:
            raise FcitError(
                f"{name}: has other files ({others[0]}), which would be loaded with this export; choose "
                "another name, or delete them there"
            )
        write_text(card, text.replace("```", f"{load}```", 1))
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Exported by fcit")
    return f"{constants.ENDPOINT}/{name}"
