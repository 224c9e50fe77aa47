"""What of a private run's folder epsilon does not cover, so that it must not be published."""

from fcit.recipe.config import Config
from fcit.rounds.runfolder import RunFolder


def uncovered(config: Config, folder: RunFolder) -> list[str]:
    """Files of the folder, and numbers in them, that are computed without noise."""
    parts = ["log.jsonl", "partition.json", "journal", "quarantine"]
    manifest = folder.manifest()
    if manifest and manifest.clients:
        parts.append("the clients' memories (state/clients-*.safetensors, clients)")
    if config.tracking.to or (folder.path / "tracking").exists():
        parts.append("tracking, and what trackers sent to other machines")
    if config.evaluation.where == "clients":
        parts.append("every accuracy (clients score their own test samples)")
    else:
        parts.append("chance (from the training answers)")
    return parts
