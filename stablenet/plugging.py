"""A block behind a named layer of any network, and its rotations fitted to what arrives there, without labels.

Source: structured neural optimization kernels as plug-ins, trained without labels [LyuTsang2021]; docs/theorems.md, O5.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn

from stablenet.blocks import NOK, Reconstructed
from stablenet.blocks.reconstructed import require_features_of
from stablenet.linear.rotation import Fixed, alternating

SHOWN = 6
SIDES = (64, 224)
"""Of the images of zeros with which a network is tried that is given no example."""


def plug_in(model: nn.Module, *, layer: str, block: NOK, example: Tensor | None = None) -> nn.Module:
    """Put x -> R^T D y_T(x) behind a layer of a model, which is changed in place, keeps its shapes, and is given back.

    The layer stands in nn.Sequential(layer, Reconstructed(block)) then, so that in the state dict of the model the names of its
    parameters gain a ".0". Beside the rotation's, if the block has one, there are no new parameters.

    Parameters
    ----------
    model : any module: torchvision's, a network of this package, your own.
    layer : its name in `model.named_modules()`, as "layer3" or "features.denseblock2".
    block : its dimension is the number of channels (of images) or of features (of vectors and tokens) that the layer gives. A
        block of vectors acts on images pixel by pixel.
    example : an input with which sizes are checked; None tries zeros. Up to the layer the model runs once, in evaluation mode.
        Where that gives nothing, sizes are checked at the first call.

    Raises
    ------
    ValueError : no such layer (the near ones are named), one of another size or that gives no real tensor, or no NOK block.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch module, got {type(model).__name__}")
    found = _layer(model, layer)
    plug = Reconstructed(block)
    shape = _shape_of(model, found, example)
    if shape is not None:
        require_features_of(block, shape, f"the output of {layer}")
    tensor = next(found.parameters(), None)
    tensor = next(model.parameters(), None) if tensor is None else tensor
    if tensor is not None:
        plug.to(tensor.device, tensor.dtype)
    both = nn.Sequential(found, plug.train(found.training))
    both.training = found.training
    parent, _, last = layer.rpartition(".")
    setattr(model.get_submodule(parent), last, both)
    return model


def _layer(model: nn.Module, name: str) -> nn.Module:
    layers = {key: module for key, module in model.named_modules() if key}
    if name in layers and type(layers[name]).forward is nn.Module.forward:
        inside = ", ".join(f"{name}.{key}" for key, _ in layers[name].named_children())
        raise ValueError(f"{name} is a list of layers, which is never called: choose one of {inside or 'the others'}")
    if name in layers:
        return layers[name]
    near = difflib.get_close_matches(name, layers, SHOWN, 0.5) or [key for key in layers if "." not in key][:SHOWN]
    raise ValueError(f"the model has no layer {name!r}: near are {', '.join(near) or 'none, as it has no layers'}")


class _Reached(Exception):
    """Raised to leave a model as soon as a layer has answered."""


def _shape_of(model: nn.Module, layer: nn.Module, example: Tensor | None) -> tuple[int, ...] | None:
    """The shape that a layer gives for an example, which must reach it; None where no guessed one does.

    A guess counts once the layer that it was made for has taken it: what stands before, as Flatten, takes other shapes too.
    """
    for taker, x in _zeros(model) if example is None else ((model, example),):
        seen: list[object] = []
        taken: list[object] = []
        handle = taker.register_forward_pre_hook(lambda module, inputs, taken=taken: taken.append(inputs))
        try:
            with _noted(layer, seen, after=True), _evaluating(model):
                _run(model, x)
        except Exception:
            if example is not None:
                raise
        finally:
            handle.remove()
        if seen:
            return _shape(seen[0]) if taken else None
    if example is not None:
        raise ValueError("the example does not reach the layer: the model does not call it")
    return None


def _shape(output: object) -> tuple[int, ...]:
    if not isinstance(output, Tensor) or not output.dtype.is_floating_point:
        raise ValueError(f"the layer gives a {getattr(output, 'dtype', type(output).__name__)}, where a real tensor is needed")
    return tuple(output.shape)


def _run(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad(), suppress(_Reached):
        model(x)


def _zeros(model: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    """Guesses of an input, by the first layer that says what it takes, with that layer."""
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            axes = len(module.kernel_size)
            yield from ((module, module.weight.new_zeros(2, module.in_channels, *[side] * axes)) for side in SIDES)
            return
        if isinstance(module, nn.Linear):
            yield module, module.weight.new_zeros(2, module.in_features)
            return


@contextmanager
def _noted(module: nn.Module, seen: list[object], *, after: bool) -> Iterator[None]:
    """What first arrives at a module, or leaves it, is added to `seen`; the model is then left."""

    def note(_: nn.Module, inputs: tuple[object, ...], output: object = None) -> None:
        seen.append(output if after else inputs[0])
        raise _Reached

    handle = module.register_forward_hook(note) if after else module.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, every module back in its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def pretrain(model: nn.Module, inputs: Tensor, *, rounds: int = 20) -> dict[str, Tensor]:
    """Fit the rotations of the plugged-in blocks to unlabeled inputs, one block after the other, first to last.

    Each of the rounds is a step of y and the best rotation for it (Procrustes) on the activations that arrive there.

    Parameters
    ----------
    model : with blocks put in by `plug_in`, each with one `stablenet.linear.rotation.Fixed`; the rest stays as it is.
    inputs : a batch of the model's inputs.
    rounds : of the alternation, at least 1.

    Returns
    -------
    for each block by its name the objective summed over the batch, (rounds,): nonincreasing (docs/theorems.md, O5).

    Raises
    ------
    ValueError : no block to fit, a rotation that is not Fixed or not tied, rounds < 1, activations with NaN or infinity.
    """
    if type(rounds) is not int or rounds < 1:
        raise ValueError(f"rounds must be an integer of at least 1, got {rounds!r}")
    plugs = {name: module for name, module in model.named_modules() if type(module) is Reconstructed}
    for name, plug in plugs.items():
        _require_fitted(name, plug.block)
    if not plugs:
        raise ValueError("the model has no block to fit: put one in by stablenet.plug_in")
    found = {}
    for name, plug in plugs.items():
        seen: list[object] = []
        with _noted(plug, seen, after=False), _evaluating(model):
            _run(model, inputs)
        if not seen:
            raise ValueError(f"the inputs do not reach {name}: the model does not call it")
        found[name] = fit_rotation(plug.block, plug.arriving(seen[0]), rounds=rounds)  # type: ignore[arg-type]
    return found


@torch.no_grad()
def fit_rotation(block: NOK, x: Tensor, *, rounds: int = 20) -> Tensor:
    """Fit the rotation of a block to a batch, without labels; the objective after each round, (rounds,) float64.

    Shapes: x as the block takes it.

    Raises
    ------
    ValueError : as `pretrain`.
    """
    rotation = _require_fitted("the block", block)
    if not torch.isfinite(x).all():
        raise ValueError("what arrives at the block holds NaN or infinity")
    objectives = []
    pairs = alternating(block.frame, block.descend, x, start=rotation.dense())
    for _, (matrix, y) in zip(range(rounds), pairs, strict=False):
        rotation.assign(matrix)
        objectives.append(block.objective(x, y).double().sum())
    return torch.stack(objectives)


def _require_fitted(name: str, block: NOK) -> Fixed:
    if len(block.rotations) != 1 or type(block.rotations[0]) is not Fixed:
        kinds = ", ".join(type(rotation).__name__ for rotation in block.rotations) or "none"
        raise ValueError(
            f"{name} has rotations {kinds}: to be fitted without labels it needs one, as "
            "NOK(..., rotation=rotation.Fixed.random(dimension))"
        )
    return block.rotations[0]
