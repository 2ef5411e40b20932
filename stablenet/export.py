"""A trained network without what trained it: plain layers, as a torch program or ONNX, with the same certificate.

Source: a certificate is a function of the weights (docs/theorems.md, C7), so that it survives the move; R1 for the radius.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from stablenet.blocks.flow import plain_form
from stablenet.certificate import certify
from stablenet.files import aside
from stablenet.networks.classifier import Classifier

FORMATS = (".onnx", ".pt2")
TOLERANCE = 1e-5


def plain(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode, frozen, each block in its plain form: no policy, nothing that follows a norm, no hook.

    Same outputs and same certificate.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if plain_form.covers(child):
                setattr(parent, name, plain_form.of(child))
    return plain_form.of(network) if plain_form.covers(network) else network


class WithRadius(nn.Module):
    """images (batch, channels, height, width) in [0, 1] -> (logits, radius), (batch, classes) and (batch,).

    radius is the certified l2 radius in the precision of the weights, rounded down by far more than their rounding; 0 where
    the largest logits tie.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network = plain(classifier)
        dtype = classifier.head.weight.dtype
        constants = classifier.pairwise_lipschitz().to(dtype) * (1 + 4 * torch.finfo(dtype).eps)
        self.register_buffer("constants", constants.clamp_min(torch.finfo(dtype).tiny))
        self.shrink = 1 - 16 * torch.finfo(dtype).eps

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images)
        values, best = logits.max(1, keepdim=True)
        radii = (values - logits) / self.constants[best[:, 0]]
        others = torch.arange(logits.shape[1], device=logits.device) != best
        return logits, torch.where(others, radii, torch.inf).amin(1) * self.shrink


def write(classifier: Classifier, path: Path) -> Path:
    """Write `WithRadius(classifier)` to PATH.onnx (ONNX, any batch size) or PATH.pt2 (torch.export), its card beside it.

    The card (PATH.onnx.json, PATH.pt2.json) holds the certificate, the constants of the pairs of logits, shapes and the file's
    sha256. The file is read back and run: nothing is left where its logits differ from the network's by more than 1e-5.

    Raises
    ------
    ValueError : another suffix, no classifier, the packages that write ONNX are missing, or the file does not agree.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"cannot export to {path.name}: end the name in {' or '.join(FORMATS)}")
    if type(classifier) is not Classifier:
        raise ValueError(f"cannot export a {type(classifier).__name__}: only classifiers are exported")
    a, module = classifier.architecture, WithRadius(classifier).eval()
    shape, generator = (a.channels, a.height, a.width), torch.Generator().manual_seed(0)
    examples = [torch.rand((n, *shape), generator=generator).to(classifier.head.weight.dtype) for n in (2, 3)]
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad(), aside(path) as temporary:
        program = torch.export.export(module, (examples[0],), dynamic_shapes=(batch,))
        if path.suffix == ".pt2":
            torch.export.save(program, temporary)
            written = torch.export.load(temporary).module()
        else:
            written = _write_onnx(program, temporary)
        worst = max(float((written(x)[0] - module(x)[0]).abs().max()) for x in examples)
        if not worst <= TOLERANCE:
            raise ValueError(f"not exported: the logits of {path.name} would differ by {worst:.3g}, more than {TOLERANCE:g}")
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    found = certify(classifier).certificate
    card = {
        "input": {"images": ["batch", a.channels, a.height, a.width], "range": [0, 1]},
        "outputs": {"logits": ["batch", a.classes], "radius": ["batch"]},
        "certificate": {"lipschitz": found.lipschitz, "pairwise_lipschitz": classifier.pairwise_lipschitz().tolist()},
        "sha256": digest,
    }
    with aside(card_path(path)) as temporary:
        temporary.write_text(json.dumps(card, indent=2))
    return path


def card_path(path: Path) -> Path:
    """PATH.onnx.json: PATH.json belongs to the weights that may stand beside it."""
    return path.with_name(f"{path.name}.json")


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> Callable[[Tensor], list[Tensor]]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it for this
    except ImportError as error:
        raise ValueError(f"writing ONNX needs the extra `export` ({error}): pip install 'stablenet[export]'") from None
    names = {"input_names": ["images"], "output_names": ["logits", "radius"]}
    torch.onnx.export(program, f=str(path), **names, external_data=False, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(y) for y in session.run(None, {"images": images.numpy()})]
