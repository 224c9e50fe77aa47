"""Flower's messages: a JSON header and one body of safetensors bytes, as on every wire of fcit."""

from __future__ import annotations

import json

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fcit.engines import wire
from fcit.engines.node import Reply
from fcit.types import FcitError, Weights
from fcit.weights import from_bytes, to_bytes


def pack(header: wire.Header, weights: Weights) -> RecordDict:
    """A message's content. Tensors go as they are, as bytes: bf16 has no form in NumPy."""
    records = RecordDict({"header": ConfigRecord({"json": json.dumps(header)})})
    if weights:
        data = to_bytes(weights)
        records["body"] = ArrayRecord({"": Array("uint8", (len(data),), "safetensors", data)})
    return records


def unpack(records: RecordDict) -> Reply:
    """The inverse of `pack`. Raises FcitError on anything that `pack` cannot have made."""
    try:
        header = json.loads(str(records.config_records["header"]["json"]))
        body = records.array_records.get("body")
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        return header, from_bytes(body[""].data) if body is not None else {}
    except (KeyError, ValueError, RecursionError) as error:
        raise FcitError(f"not a message of fcit: {error!r}") from None
