"""Figures of a run: the images side by side, and the residual against its theorem. Written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from pnp.guarantees import EnergyDescends, Guarantee, Nonincreasing
from stablenet.files import aside


def comparison(path: Path, panels: list[tuple[str, Tensor]], *, kernel: Tensor | None = None) -> None:
    """Images (1, channels, height, width) beside each other under their titles, the kernel inset in the second."""
    height, width = panels[0][1].shape[-2:]
    figure = Figure(figsize=(4.2 * len(panels), 4.2 * height / width + 0.35), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (title, pixels) in zip(axes[0], panels, strict=True):
        _show(axis, pixels)
        axis.set_title(title, fontsize=11)
    if kernel is not None:
        _inset(axes[0, 0 if len(panels) == 2 else 1], kernel)
    with aside(path) as partial:
        figure.savefig(partial, dpi=150)


def residual_plot(
    path: Path,
    residuals: Tensor,
    *,
    size: int,
    tolerance: float,
    guarantee: Guarantee,
    distance: Tensor,
    energy: float | None = None,
    refreshes: Sequence[int] = (),
) -> None:
    """The fixed-point residual of each image against the iteration, with the rate of the theorem.

    Parameters
    ----------
    residuals : (iterations, batch).
    size : entries of one image, so that the plot shows root mean squares.
    distance : (batch,) of the start to the last iterate, which stands for the unknown distance to the fixed point.
    energy : F at the start, where the run descends on it.
    refreshes : after how many iterations a new guide was taken; the bound is of the last run.
    """
    steps = np.arange(1, len(residuals) + 1)
    scale = size**0.5
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.loglog(steps, residuals.cpu().numpy() / scale, color="C0", linewidth=1.8)
    axis.lines[0].set_label("measured residual")
    largest = float(distance.max())
    plain = guarantee.watch == Nonincreasing()
    rate = r"$\sqrt{\alpha/(1-\alpha)}\;d_0/\sqrt{k}$" if plain else "its bound"
    label = rf"theorem: {rate}, $d_0$ to the last iterate"
    bound = [guarantee.residual_bound(largest, int(k) - 1) / scale for k in steps]
    if isinstance(guarantee.watch, EnergyDescends) and energy is not None:
        bound = [guarantee.watch.least_residual_bound(energy, int(k) - 1) / scale for k in steps]
        label = r"theorem: the least so far is below $\sqrt{F(x_0)/(c\,k)}$"
    if np.isfinite(bound).all() and not refreshes:
        axis.loglog(steps, bound, color="C3", linestyle="--", label=label)
    for k in refreshes:
        axis.axvline(k, color="C2", linewidth=1, label="a new guide" if k == refreshes[0] else None)
    if tolerance > 0:
        axis.axhline(tolerance, color="0.5", linestyle=":", label="tolerance")
    axis.set(xlabel="iteration k", ylabel="root mean square over the pixels", title=f"Residual {guarantee.monotone}")
    axis.title.set_fontsize(11)
    axis.grid(which="both", linewidth=0.4, alpha=0.4)
    axis.legend(facecolor="white", edgecolor="none", framealpha=1)
    with aside(path) as partial:
        figure.savefig(partial, dpi=150)


def _inset(axis: Axes, kernel: Tensor) -> None:
    """The kernel from black, which is 0, to white, its largest entry, in a frame of zeros."""
    values = kernel[0, 0].detach().cpu()
    framed = pad(values, [max(1, max(values.shape) // 8)] * 4).numpy()
    inset = axis.inset_axes((0.77, 0.75, 0.22, 0.24))
    inset.imshow(framed, cmap="gray", interpolation="nearest", vmin=0, vmax=float(values.max()))
    inset.set(xticks=[], yticks=[])
    for spine in inset.spines.values():
        spine.set_color("white")


def _show(axis: Axes, pixels: Tensor) -> None:
    values = pixels[0].detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    axis.imshow(values[..., 0] if values.shape[2] == 1 else values, cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
