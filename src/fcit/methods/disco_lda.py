"""disco_lda: DISCO (arXiv 2503.12897) with whole subspaces and a router by linear discriminant analysis.

fcit's own (docs/methods/disco_lda.md). It changes two things, and pays for them with one of eight ranks:

1. A subspace is all that a client trains, its LoRA and its projector. The projector that DISCO shares
   goes on changing after a subspace was last trained.
2. Clients send the second moment of their instructions' features with the mean (`moments`). Both average
   exactly over clients. So the server knows how the features vary within a subspace, and a question's
   shares are the probabilities p(k) = softmax(f^T P m_k - m_k^T P m_k / 2), P the inverse of the pooled
   covariance with a small ridge (Fisher 1936), where DISCO has softmax(cos(f, m_k) / temperature).

Which subspace a client joins stays DISCO's: cosines of means, and tau.
"""

from dataclasses import dataclass
from typing import Literal

from fcit.methods.base import AtLeast1
from fcit.methods.disco import Disco


@dataclass(frozen=True)
class DiscoLda(Disco):
    """Whole subspaces, opened by linear discriminant analysis."""

    rank: AtLeast1 = 7
    """Rank r of each LoRA block. With rank 8 less one, messages of text tokens in float32 or bfloat16 are
    smaller than disco's of rank 8, second moments included."""

    projector: Literal["shared", "isolated", "lora", "frozen"] = "isolated"
    """`isolated`: every subspace has its own. Others as in disco."""

    router: Literal["cosine", "discriminant"] = "discriminant"
    """`discriminant`: linear discriminant analysis. `cosine`: as in disco; `as_reference` and
    `gate = "cosine"` need it."""
