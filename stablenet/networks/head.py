"""A classifier's last layer: logits whose differences have known Lipschitz constants.

Source: docs/theorems.md, R1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stablenet import spectral
from stablenet.certificate import Certificate, CertificateTree, NotCertified, rule


class PairwiseHead(nn.Module):
    """(batch, features) -> (batch, classes): y_i = <w_i, x> / |w_i| + b_i, so that each logit is 1-Lipschitz in x.

    The difference of logits i and j has the constant |w_i/|w_i| - w_j/|w_j||, exactly.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        nn.init.orthogonal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, functional.normalize(self.weight), self.bias)

    def distances(self) -> Tensor:
        """(classes, classes): |w_i/|w_i| - w_j/|w_j||, differentiable off the diagonal, where training pushes on them."""
        rows = functional.normalize(self.weight)
        distances: Tensor = (2 - 2 * rows @ rows.T).clamp_min(1e-6).sqrt()
        return distances

    def pairwise_lipschitz(self) -> Tensor:
        """(classes, classes) float64: the constant of each difference of logits, rounded up; 0 on the diagonal.

        Computed from the rows as the forward pass uses them, rounding of the normalization included.
        """
        rows = functional.normalize(self.weight.detach()).double().cpu()
        distances: Tensor = torch.linalg.vector_norm(rows[:, None] - rows[None], dim=-1)
        return distances * (1 + 1e-12)


@rule(PairwiseHead)
def _certify_head(head: PairwiseHead) -> CertificateTree:
    if head.bias.shape != head.weight.shape[:1]:
        raise NotCertified(f"a PairwiseHead with weight {tuple(head.weight.shape)}, bias {tuple(head.bias.shape)} has no proof")
    bound = spectral.matrix_upper_bound(functional.normalize(head.weight.detach()))
    return CertificateTree("PairwiseHead", Certificate(bound), f"rows of norm 1, spectral norm <= {bound:.6g}")
