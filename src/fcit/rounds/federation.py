"""A recipe's `[federation]` section: the clients, and how their updates are aggregated."""

from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from pydantic import Field

from fcit.aggregation.averaging import Average
from fcit.aggregation.packing import Wire
from fcit.aggregation.robust import Rule
from fcit.optimizers import Optimizer, find
from fcit.types import MOST, MOST_CLIENTS, FcitError


@dataclass(frozen=True)
class Federation:
    """The `[federation]` section."""

    clients: Annotated[int, Field(ge=1, le=MOST_CLIENTS)] = 50
    """Number of clients."""
    per_round: Annotated[int, Field(ge=1)] = 5
    """Clients that train in a round."""
    rounds: Annotated[int, Field(ge=1, le=MOST)] = 10
    """Rounds per stage."""
    min_samples: Annotated[int, Field(ge=1, le=MOST)] = 1
    """Minimum training samples of each task that a client gets (of each dataset with
    `setting.split = "per-dataset"`)."""
    ranks: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Client k trains with rank `ranks[k mod length]`: with `[4, 8, 16]` client 0 has 4, client 1 has 8,
    client 3 has 4. A client trains and sends the first r rows of A and columns
    of B; the others stay as they are. The largest must be `method.rank` (`[]`: that rank for all)."""
    average: Average = "factors"
    """How LoRA adapters are averaged. `factors`: A and B separately. `product`: the product B·A,
    truncated to rank r."""
    optimizer: str = "fedavg"
    """Federated optimizer: `fedavg`, `fedprox`, `scaffold`, `fedavgm`, `fedadam`, `fedyogi` or
    `fedadagrad`. fedsa_lora takes only `fedavg` and `fedprox`."""
    optimizer_options: dict[str, float] = field(default_factory=dict[str, float])
    """Hyper-parameters of the optimizer (see below)."""
    engine: Literal["local", "flower"] = "local"
    """Where clients run. `local`: worker processes. `flower`: Flower's simulation."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Worker processes (0 = one per GPU, otherwise one per core). Changes the speed, not the numbers."""
    min_clients: Annotated[int, Field(ge=0)] = 0
    """Minimum valid updates per round (0 = all). With `evaluation.where = "clients"`, the same
    share of all clients must return a score."""
    deadline: Annotated[float, Field(ge=0, le=31_536_000)] = 0.0
    """Seconds a client has for a turn, loading the model included (0 = no limit). Across machines:
    seconds that all clients of a round have together (0 = one hour)."""
    outlier_factor: Annotated[float, Field(ge=0)] = 1000.0
    """Reject updates and identity tokens larger than N times the round's median; 0 turns this off, which
    privacy requires. Changes, optimizer tensors and, in a deployment, sample counts are compared
    separately; statistics are squares, so N² applies."""
    robust: Rule = "mean"
    """Aggregation within a subspace: `mean`, `median`, `trimmed` (trimmed mean) or `krum`. The robust
    rules ignore sample counts."""
    byzantine_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """Share of malicious clients that `trimmed` and `krum` must tolerate."""
    wire: Wire = "float32"
    """Encoding of tensors in transit: `float32`, `bfloat16` or `int8` (one scale per 64 values). The last
    two send changes instead of weights, and round them."""

    def __post_init__(self) -> None:
        if self.per_round > self.clients:
            raise FcitError(
                f"federation: per_round ({self.per_round}) exceeds clients ({self.clients})"
            )
        if self.min_clients > self.per_round:
            raise FcitError(
                f"federation: min_clients ({self.min_clients}) exceeds per_round ({self.per_round})"
            )
        if self.robust != "mean" and self.average == "product":
            raise FcitError('federation.robust works with average = "factors" only')
        if self.robust != "mean" and self.optimizer == "scaffold":
            raise FcitError(
                "federation.robust does not cover scaffold's control variates, which are plain means; "
                "choose another optimizer"
            )
        if self.ranks and self.robust != "mean":
            raise FcitError(
                f'federation.ranks excludes federation.robust = "{self.robust}": rows that most '
                'clients do not train would never change; set robust = "mean"'
            )
        if self.ranks and self.optimizer == "scaffold":
            raise FcitError(
                'federation.ranks excludes federation.optimizer = "scaffold": control variates '
                "would have the ranks of single clients; choose another optimizer"
            )
        self.build_optimizer()

    def rank_of(self, client: int) -> int:
        """The rank that a client trains; 0: that of the method."""
        return self.ranks[client % len(self.ranks)] if self.ranks else 0

    def build_optimizer(self) -> Optimizer:
        """The federated optimizer with its hyper-parameters. Raises FcitError on one that it lacks."""
        kind = find(self.optimizer)
        known = [option.name for option in fields(kind)]
        if unknown := next((key for key in self.optimizer_options if key not in known), None):
            options = f"its options are {', '.join(known)}" if known else "it has no options"
            raise FcitError(
                f"federation.optimizer_options: {self.optimizer} has no {unknown!r}; {options}"
            )
        return kind(**self.optimizer_options)
