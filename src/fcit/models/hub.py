"""Whether a base model can be had: in a folder, in the Hugging Face cache, or on the hub."""

from pathlib import Path

from fcit.types import FcitError, first_line

SECONDS = 5.0
"""How long the hub may take to say that it has a model."""


def require(name: str, key: str) -> None:
    """Raise FcitError naming the recipe's `key` where a hub id has no config.json, or where a folder is
    not a model's (see `folders.check_folder`)."""
    if not name:
        return
    if Path(name).is_dir():
        from fcit.models.folders import check_folder

        return check_folder(name, key.removeprefix("model."))
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return
        HfApi().model_info(name, timeout=SECONDS)
        return
    except HFValidationError:
        reason = "no such folder"
    except RepositoryNotFoundError:
        reason = "no such folder, and no such model on the hub that you may read"
    except HfHubHTTPError:  # a mirror that only serves files: loading will tell
        return
    except Exception as error:  # of the network, of which the hub's library lets many kinds through
        line = first_line(error)
        reason = (
            f"no such folder, and {constants.ENDPOINT} cannot be asked for such a model: {line}"
        )
    raise FcitError(f"{key}: {name}: {reason}")


def require_encoder(name: str, kind: str | None) -> None:
    """`require` of an identity encoder. Raises FcitError too where it makes no tokens of this kind (None:
    none are asked for)."""
    require(name, "model.identity")
    if name and kind:
        from fcit.models.size import encoder_size

        encoder_size(name, kind, local=False)
