"""Blocks: one family a file, the module and then its certificate rule."""

from stablenet.blocks.gradient_flow import GradientFlow

__all__ = ["GradientFlow"]
