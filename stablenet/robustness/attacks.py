"""Attacks: the smallest change of an image that is found to change its class, the upper bound to every certified radius.

Source: projected gradient descent [Madry2018] and DeepFool [MoosaviDezfooli2016] as foolbox has them, AutoAttack
[CroceHein2020] as pyautoattack has it; an adversarial image counts only after it was classified and measured here again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from stablenet.images.labeled import LabeledImages
from stablenet.robustness.certification import check_epsilon, in_double

BISECTIONS = 12
AutoAttackPart = Literal["apgd-ce", "apgd-t", "fab-t", "square"]
AUTOATTACK = get_args(AutoAttackPart)


class CertificateViolated(AssertionError):
    """Raised when an image is found closer than its certified radius with another class: a bug in the certificate."""


@dataclass(frozen=True)
class Attack:
    """Which attacks to run.

    Parameters
    ----------
    epsilons : l2 distances for images in [0, 1] at which projected gradient descent (and AutoAttack) search.
    steps, restarts : of projected gradient descent, from random starts in the ball.
    autoattack : its parts to run, among apgd-ce, apgd-t, fab-t and square; () for none. All four are its standard version.
    batch_size : images at a time; seed : of the random starts.

    Raises
    ------
    ValueError : an epsilon out of range, or a count below 1.
    """

    epsilons: tuple[float, ...] = (36 / 255, 72 / 255, 108 / 255, 0.5, 1.0)
    steps: int = 40
    restarts: int = 2
    autoattack: tuple[AutoAttackPart, ...] = ()
    batch_size: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        for epsilon in self.epsilons:
            check_epsilon(epsilon)
        for name in ("steps", "restarts", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        unknown = set(self.autoattack) - set(AUTOATTACK)
        if unknown:
            raise ValueError(f"unknown parts of AutoAttack {sorted(unknown)}: known are {', '.join(AUTOATTACK)}")


@dataclass(frozen=True, eq=False)
class Attacked:
    """What was found, one entry an image: true and predicted class, distance to the nearest image with another class
    (l2, infinite if none was found), that image (count, channels, height, width), its class, the attack that found it."""

    labels: Tensor
    predictions: Tensor
    distances: Tensor
    nearest: Tensor
    changed: Tensor
    found_by: tuple[str, ...]

    @property
    def right(self) -> Tensor:
        """Which images are predicted rightly."""
        return self.predictions == self.labels

    def part(self, start: int | None, stop: int | None) -> Attacked:
        """Those from `start` to before `stop`."""
        return Attacked(*(getattr(self, f.name)[start:stop] for f in fields(self)))

    def accuracy(self, epsilons: Sequence[float]) -> dict[float, float]:
        """The share of images predicted rightly for which nothing was found within epsilon (at 0: clean accuracy)."""
        survives = {e: self.right & (self.distances > check_epsilon(e)) for e in epsilons}
        return {e: float((kept if e else self.right).double().mean()) for e, kept in survives.items()}


def attack(network: nn.Module, images: LabeledImages, settings: Attack = Attack(), *, radii: Tensor | None = None) -> Attacked:  # noqa: B008 - frozen
    """Attack every image's prediction with DeepFool and projected gradient descent, and AutoAttack where asked for.

    network : images (batch, channels, height, width) in [0, 1] to logits, in evaluation mode; adversarial images stay in
    [0, 1]. radii : certified radii (count,), to hold the distances against.

    Raises
    ------
    CertificateViolated : a distance below its certified radius.
    ValueError : the packages of the extra `attack` are missing, or a network in training mode.
    """
    if network.training:
        raise ValueError("the network is in training mode: call network.eval() first")
    parameters = [p for p in network.parameters() if p.requires_grad]
    for parameter in parameters:  # its gradients are not wanted, and cost a third of the time
        parameter.requires_grad_(False)
    try:
        parts = [_Search(network, part, settings).run() for part in images.images.split(settings.batch_size)]
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
    found = Attacked(
        labels=images.labels,
        predictions=torch.cat([p.predictions for p in parts]),
        distances=torch.cat([p.distances for p in parts]),
        nearest=torch.cat([p.nearest for p in parts]),
        changed=torch.cat([p.changed for p in parts]),
        found_by=tuple(name for p in parts for name in p.found_by),
    )
    if radii is not None:
        _hold(network, images, found, radii.cpu())
    return found


@torch.no_grad()
def _hold(network: nn.Module, images: LabeledImages, found: Attacked, radii: Tensor) -> None:
    """Radii speak of the exact network: what an attack found nearer is classified again in float64 before it refutes one."""
    nearer = (found.distances < radii).nonzero()[:, 0]
    if not len(nearer):
        return
    exact = in_double(network)
    place = next(exact.parameters())
    before = exact((images.images[nearer].float() / 255).to(place)).argmax(1).cpu()
    broken = nearer[exact(found.nearest[nearer].to(place)).argmax(1).cpu() != before].tolist()
    if broken:
        k = broken[0]
        raise CertificateViolated(
            f"{len(broken)} certified radii are refuted, first that of image {k}: {float(radii[k]):.6g} is certified, and "
            f"{found.found_by[k]} changes class {int(found.predictions[k])} at {float(found.distances[k]):.6g}. This is a bug "
            "in the certificate: please report it with the weights and the image"
        )


class _Search:
    """The nearest image with another class that any attack met, for one batch."""

    def __init__(self, network: nn.Module, images: Tensor, settings: Attack) -> None:
        reference = next(network.parameters())
        self.network, self.settings = network, settings
        self.images = (images.float() / 255).to(reference)
        logits = self._logits(self.images)
        self.predictions, self.count = logits.argmax(1).cpu(), logits.shape[1]
        self.distances = torch.full((len(images),), math.inf, dtype=torch.float64)
        self.nearest, self.changed = self.images.cpu().clone(), self.predictions.clone()
        self.found_by = ["" for _ in images]

    @torch.no_grad()
    def _logits(self, images: Tensor) -> Tensor:
        return self.network(images)

    def _classes(self, images: Tensor) -> Tensor:
        return self._logits(images).argmax(1)

    def run(self) -> _Search:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            for name, candidates in self._candidates():
                self._keep(name, candidates)
        return self

    def _keep(self, name: str, candidates: Tensor) -> None:
        """Take over what is nearer, after bisecting the way to it: a class changes somewhere on the line."""
        candidates = candidates.detach().clamp(0, 1)
        changed = self._classes(candidates).cpu() != self.predictions
        low, high = torch.zeros(len(candidates)), torch.ones(len(candidates))
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            other = self._classes(self._toward(candidates, middle)).cpu() != self.predictions
            low, high = torch.where(other, low, middle), torch.where(other, middle, high)
        found = self._toward(candidates, high)
        classes = self._classes(found).cpu()
        changed &= classes != self.predictions
        distances = (found.double() - self.images.double()).flatten(1).norm(dim=1).cpu()
        nearer = changed & (distances < self.distances)
        self.distances = torch.where(nearer, distances, self.distances)
        self.nearest[nearer], self.changed[nearer] = found.cpu()[nearer], classes[nearer]
        self.found_by = [name if new else old for new, old in zip(nearer.tolist(), self.found_by, strict=True)]

    def _toward(self, candidates: Tensor, share: Tensor) -> Tensor:
        return self.images + share.to(self.images).reshape(-1, 1, 1, 1) * (candidates - self.images)

    def _candidates(self) -> Iterator[tuple[str, Tensor]]:
        s, labels = self.settings, self.predictions.to(self.images.device)
        foolbox, model = self._foolbox()
        deepfool = foolbox.attacks.L2DeepFoolAttack(steps=s.steps)
        yield "DeepFool", deepfool(model, self.images, labels, epsilons=None)[0]
        for epsilon in s.epsilons:
            for _ in range(s.restarts if epsilon else 0):
                descent = foolbox.attacks.L2PGD(steps=s.steps, rel_stepsize=2.5 / s.steps, random_start=True)
                yield "projected gradient", descent(model, self.images, labels, epsilons=[epsilon])[0][0]
        for epsilon in s.epsilons if s.autoattack else ():
            left = self.distances > epsilon
            if epsilon and left.any():
                candidates = self.images.clone()
                candidates[left] = self._autoattack(epsilon, left)
                yield "AutoAttack", candidates

    def _foolbox(self) -> tuple[Any, Any]:
        try:
            import foolbox
        except ImportError as error:
            raise ValueError(f"attacks need the extra `attack` ({error}): pip install 'stablenet[attack]'") from None
        return foolbox, foolbox.PyTorchModel(self.network, bounds=(0, 1), device=self.images.device)

    def _autoattack(self, epsilon: float, left: Tensor) -> Tensor:
        try:
            from pyautoattack import AutoAttack
        except ImportError as error:
            raise ValueError(f"AutoAttack needs the extra `attack` ({error}): pip install 'stablenet[attack]'") from None
        suite = AutoAttack(self.network, norm="L2", eps=epsilon, seed=self.settings.seed, device=str(self.images.device))
        suite.attacks_to_run = list(self.settings.autoattack)
        suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = min(9, self.count - 1)
        labels = self.predictions.to(self.images.device)
        return suite.run_standard_evaluation(self.images[left], labels[left], batch_size=self.settings.batch_size)[0]
