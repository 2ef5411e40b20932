"""What a block makes of its input, back where the input lives: x -> R^T D y_T(x), of x's own shape.

Source: [LyuTsang2021]; the constant is that of T steps within the rows' space of D (docs/theorems.md, K4 and K8).
"""

from __future__ import annotations

from fractions import Fraction

from torch import Tensor, nn

from stablenet.blocks.nok import NOK, constant_of
from stablenet.certificate import Certificate, CertificateTree, NotCertified, certify, rule
from stablenet.linear import parseval
from stablenet.rounding import root_up, round_up


class Reconstructed(nn.Module):
    """x -> R^T D y_T(x), y_T the last step of a block; it adds no parameter but those of the block's rotation.

    Parameters
    ----------
    block : where its rotations are not tied, the last one leads back.

    Shapes: x to x's shape. A block of vectors takes (..., dimension) and, pixel by pixel, images (batch, dimension, height,
    width) and volumes; a block of images takes images.

    Raises
    ------
    ValueError : block is no NOK block; x of other sizes, which the message tells beside the block's.
    """

    def __init__(self, block: NOK) -> None:
        super().__init__()
        if type(block) is not NOK:
            raise ValueError(f"block must be a NOK block of stablenet.blocks, got {type(block).__name__}")
        self.block = block

    def arriving(self, x: Tensor) -> Tensor:
        """x as the block takes it: the channels of images last for a block of vectors.

        Raises
        ------
        ValueError : x has other sizes than the block.
        """
        require_features_of(self.block, tuple(x.shape))
        return x.movedim(1, -1) if self._turns(x) else x

    def _turns(self, x: Tensor) -> bool:
        return self.block.frame.axis == -1 and x.ndim > 3

    def forward(self, x: Tensor) -> Tensor:
        image = self.block.frame(self.block(self.arriving(x)))
        if len(self.block.rotations):
            image = self.block.rotations[-1].adjoint(image)  # type: ignore[operator]
        return image.movedim(-1, 1) if self._turns(x) else image


def require_features_of(block: NOK, shape: tuple[int, ...], what: str = "x") -> None:
    """Refuse a shape without the block's features: the channels of images and volumes, else the last axis.

    Raises
    ------
    ValueError : naming the shape, the features found and those of the block.
    """
    frame, count = block.frame, len(shape)
    if frame.axis == 1 and count != 4:
        raise ValueError(f"{what} has shape {shape}, but a block of images needs (batch, {frame.dimension}, height, width)")
    axis = 1 if count > 3 else count - 1
    if count < 1 or shape[axis] != frame.dimension:
        found = f"{shape[axis]} {'channels' if axis == 1 and count > 3 else 'features'}" if count else "no axis"
        raise ValueError(f"{what} has shape {shape}, {found}, but the block has dimension {frame.dimension}")


@rule(Reconstructed)
def _certify(module: Reconstructed) -> CertificateTree:
    if type(module.block) is not NOK:
        raise NotCertified(f"R^T D y of a {type(module.block).__name__} has no proof")
    child = certify(module.block)
    lipschitz, _, _ = constant_of(module.block, rows=True)
    if len(module.block.rotations):
        lipschitz *= root_up(1 + Fraction(parseval.of(module.block.rotations[-1])))
    reason = "R^T D after the block, which the steps within the kernel of D do not reach"
    return CertificateTree("Reconstructed", Certificate(round_up(lipschitz)), reason, (child,))
