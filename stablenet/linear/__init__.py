"""Linear maps with an exact adjoint and norm bounds: dense, convolutions, polyphase convolutions, Parseval frames."""

from stablenet.linear import frames, rotation
from stablenet.linear.adjoints import fold_product
from stablenet.linear.convolution import Conv1d, Conv2d, Conv3d
from stablenet.linear.dense import Dense
from stablenet.linear.polyphase import PolyphaseConv2d
from stablenet.linear.protocol import Frame, LinearMap, Rotation, Strips, Tracker, WeightedMap, block_map, parseval
from stablenet.linear.strips import in_strips

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Dense",
    "Frame",
    "LinearMap",
    "PolyphaseConv2d",
    "Rotation",
    "Strips",
    "Tracker",
    "WeightedMap",
    "block_map",
    "fold_product",
    "frames",
    "in_strips",
    "parseval",
    "rotation",
]
