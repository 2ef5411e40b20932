"""Linear maps with an exact adjoint and norm bounds: dense, convolutions in one to three axes, polyphase convolutions."""

from stablenet.linear.convolution import Conv1d, Conv2d, Conv3d
from stablenet.linear.dense import Dense
from stablenet.linear.polyphase import PolyphaseConv2d
from stablenet.linear.strips import in_strips, is_plain, padding_of

MAPS = (Dense, Conv1d, Conv2d, Conv3d, PolyphaseConv2d)

__all__ = ["MAPS", "Conv1d", "Conv2d", "Conv3d", "Dense", "PolyphaseConv2d", "in_strips", "is_plain", "padding_of"]
