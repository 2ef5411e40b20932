"""Blocks: one family a file, the module and then its certificate rule."""

from stablenet.blocks.gradient_flow import GradientFlow
from stablenet.blocks.nok import NOK
from stablenet.blocks.reconstructed import Reconstructed

__all__ = ["NOK", "GradientFlow", "Reconstructed"]
