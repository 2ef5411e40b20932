"""Blocks: one family a file, the module and then its certificate rule."""

from stablenet.blocks.gradient_flow import GradientFlow
from stablenet.blocks.nok import NOK

__all__ = ["NOK", "GradientFlow"]
