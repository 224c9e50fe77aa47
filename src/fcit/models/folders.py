"""The one place that reads model folders and hub ids: no code in them runs, and a fault is one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from tokenizers import Tokenizer
from transformers.utils import logging

from fcit.files import kind, read_json
from fcit.models.device import TooLittleMemoryError, lacks_memory
from fcit.types import FcitError, first_line, one_line

logging.disable_progress_bar()  # loading a few files is not worth a bar of its own
logging.set_verbosity_error()  # what concerns fcit is checked and raised here

TABLES = ("config.json", "processor_config.json", "preprocessor_config.json",
          "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
          "model.safetensors.index.json")  # fmt: skip
"""A model folder's JSON files that hold an object."""

CODE = (
    "Python code of its own, and fcit runs no code of models; take one that transformers itself has"
)

UNREAD = (".bin", ".pt", ".pth", ".gguf")
"""Ends of files of weights that are not read: pickles, which may run code, and llama.cpp's."""

DEEPEST, LARGEST = 1000, 2**31
"""The largest number of layers, and the largest whole number, in a believable config.json. (Modules are
built before any tensor is compared, so a billion layers would take for ever.)"""


@contextmanager
def faults(
    folder: str | Path, key: str = "path", files: tuple[str, ...] = TABLES[:1]
) -> Iterator[None]:
    """Whatever goes wrong with a model is a FcitError that names the `[model]` key, the folder, and the
    file at fault, or else those of `files` that are there."""
    start = f"[model] {key}: {folder}"
    try:
        yield
    except (FcitError, KeyboardInterrupt, SystemExit):
        raise
    except ImportError as error:
        raise FcitError(f"{start} needs a package: {one_line(str(error))}") from None
    except BaseException as error:  # nearly anything, tokenizers' panics (no Exceptions) among it
        if lacks_memory(error):
            raise TooLittleMemoryError(f"{start}: {first_line(error)}") from None
        _check_large(Path(folder))
        line = str(error) or type(error).__name__
        if not isinstance(error, OSError | ValueError):
            line = f"{type(error).__name__}: {line}"
        if names := [name for name in files if (Path(folder) / name).is_file()]:
            start += f" ({', '.join(names)})"
        if "trust_remote_code" in line:
            line = f"it needs {CODE}"
        if "couldn't connect" in line or "outgoing traffic" in line:
            line = "it is not on this disk, and the hub cannot be reached"
        if "backend tokenizer" in line and Path(folder).is_dir():
            line = "there is no tokenizer.json (or tokenizer.model) in it"
        if "`use_safetensors=True`" in line:  # a hub id
            line = (
                "it has no safetensors files; download its folder and convert it (docs/models.md)"
            )
        if "llava_llama" in line:  # a hub id: only a folder's files can be looked at
            line = "a LLaVA checkpoint in the original format; download it and name its folder"
        raise FcitError(f"{start} does not load: {one_line(line)}") from None


def _check_large(folder: Path) -> None:
    """Raise FcitError where a folder's tokenizer or weights cannot be read. (Large, so only once
    something is wrong.)"""
    path = folder / "tokenizer.json"
    if path.is_file():
        read_json(path)
        try:
            Tokenizer.from_file(str(path))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # its panics are no Exceptions
            raise FcitError(f"{path}: describes no tokenizer: {one_line(str(error))}") from None
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except Exception as error:
            raise FcitError(f"{path}: no safetensors file: {one_line(str(error))}") from None


def check_folder(folder: str | Path, key: str = "path") -> None:
    """Raise FcitError where a folder's tables cannot be read, or make it something else than a model."""
    folder = Path(folder)
    if (folder / "adapter_config.json").exists():
        raise FcitError(
            f"[model] {key}: {folder} holds a PEFT adapter (adapter_config.json); name the base model, "
            "or a folder of fcit export --merged"
        )
    if folder.is_dir() and not (folder / "config.json").exists():
        why = "there is no config.json in it"
        if gguf := sorted(folder.glob("*.gguf")):
            why += f"; transformers converts its {gguf[0].name} (docs/models.md)"
        raise FcitError(f"[model] {key}: {folder} is no model's folder: {why}")
    for path in (folder / name for name in TABLES):
        if path.exists():
            table = read_json(path)
            if not isinstance(table, dict):
                raise FcitError(f"{path}: must be an object, not {kind(table)}")
            if "auto_map" in table:
                raise FcitError(f"{path}: auto_map names {CODE}")
            if path.name == "config.json":
                _check_numbers(path, table)


def _check_numbers(path: Path, table: dict[str, Any]) -> None:
    for name, value in table.items():
        if isinstance(value, dict):
            _check_numbers(path, value)
        layers = "layers" in name or name in ("depth", "n_layer", "depths")
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and abs(number) > (DEEPEST if layers else LARGEST):
                raise FcitError(
                    f"{path}: {name} = {one_line(str(number))} is too large for a model"
                )


def pretrained(loader: Any, folder: str | Path, key: str = "path", **options: Any) -> Any:
    """What one of transformers' classes reads from a folder or hub id. Raises FcitError."""
    check_folder(folder, key)
    with faults(folder, key, TABLES[1:4] if "Processor" in loader.__name__ else TABLES[:1]):
        return loader.from_pretrained(folder, trust_remote_code=False, **options)


def load_weights(
    loader: Any, folder: str | Path, key: str = "path", others: tuple[str, ...] = (), **options: Any
) -> Any:
    """A model whose safetensors hold exactly its tensors. (transformers fills a missing one with random
    numbers, and drops what is left over.) others: prefixes of tensors that may be there or not."""
    path = Path(folder)
    unread = sorted(file.name for file in path.glob("*") if file.suffix in UNREAD)
    if unread and not any(path.glob("*.safetensors")):
        reader = "AutoModel" if key == "identity" else "AutoModelForImageTextToText"
        raise FcitError(
            f"[model] {key}: {folder} has its weights in {unread[0]}, which is no safetensors file; "
            "convert them with transformers (docs/models.md): "
            f"{reader}.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    for name in ("use_safetensors", "output_loading_info", "ignore_mismatched_sizes"):
        options[name] = True
    model, report = pretrained(loader, folder, key, **options)
    for name, held, wanted in report["mismatched_keys"]:
        raise FcitError(
            f"[model] {key}: {folder}: {name} is {[*held]}, and config.json makes it {[*wanted]}"
        )
    names, held = set(report["missing_keys"]), {name for name, _ in model.named_parameters()}
    start = f"[model] {key}: {folder}"
    check_tensors(
        start,
        {name for name in names & held if not name.startswith(others)},
        {name for name in report["unexpected_keys"] if not name.startswith(others)},
    )
    return model


def check_tensors(start: str, missing: set[str], leftover: set[str]) -> None:
    """Raise FcitError, which begins with `start`, where tensors are missing or left over."""
    if missing:
        first = min(missing)
        raise FcitError(
            f"{start} lacks {len(missing)} of the model's tensors, the first is {first}; it is another "
            "model than config.json says, or not all of its files are there"
        )
    if leftover:
        raise FcitError(
            f"{start} has {len(leftover)} tensors that the model in config.json does not have, the first "
            f"is {min(leftover)}; it is another model than config.json says"
        )
