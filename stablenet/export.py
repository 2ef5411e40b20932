"""A trained network as a file that needs nothing of this package: a torch program or ONNX, with its certificate inside.

Source: a certificate is a function of the weights (docs/theorems.md, C7), so that it survives the move; R4 for the graphs.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stablenet.certificate import certify
from stablenet.files import together
from stablenet.graphs import WithLevels, WithRadius, plain
from stablenet.networks.classifier import Classifier
from stablenet.networks.denoiser import Denoiser
from stablenet.networks.symmetrized import Symmetrized
from stablenet.rules import Rules

__all__ = ["FORMATS", "Graph", "WithLevels", "WithRadius", "card_path", "graph", "plain", "write"]
FORMATS = (".onnx", ".pt2")
TOLERANCE = 1e-5
METADATA = "stablenet"
"""The key of the certificate in ONNX's metadata_props; the name of the extra file of a .pt2 has .json at its end."""
Run = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class Graph:
    """What is exported of a network.

    module : tensors in, tensors out. inputs, outputs : their names. examples : inputs to trace with, then others to compare.
    reference : the first output as the network itself gives it. sizes : for each input the axes of any size.
    card : what is told of it beside the certificate.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    examples: tuple[tuple[Tensor, ...], ...]
    reference: Callable[..., Tensor]
    sizes: tuple[dict[int, Any], ...]
    card: dict[str, Any]


class NotExported(ValueError):
    """Raised when a network cannot be exported, or its file would not agree with it."""


graph: Rules[Graph] = Rules(
    "exported form",
    NotExported,
    "only classifiers and denoisers are exported ({known}); @stablenet.export.graph({name}) registers another",
)


def write(network: nn.Module, path: Path | str) -> Path:
    """Write a classifier or a denoiser to PATH.onnx (ONNX) or PATH.pt2 (torch.export), its card beside it.

    A classifier takes images of its size in any number and gives logits and certified radii (`WithRadius`); a denoiser takes
    images of any size and number and a noise level each (`WithLevels`). The certificate is in the file (ONNX's metadata, an
    extra file of the torch program) and in the card (PATH.onnx.json, PATH.pt2.json), with the file's sha256. The file is read
    back and run before anything is put in place: both files appear, or none where it differs from the network by over 1e-5.

    Raises
    ------
    ValueError : another suffix, no exported form, the packages that write ONNX are missing, or the file does not agree.
    NotCertified : the network has no certificate.
    OSError : the folder cannot be written to.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise NotExported(f"cannot export to {path.name}: end the name in {' or '.join(FORMATS)}")
    found = certify(network).certificate if graph.covers(network) else None
    whole = graph.of(network)
    certificate = {"lipschitz": found.lipschitz, "averagedness": found.averagedness} if found else {}
    card = {**whole.card, "certificate": {**certificate, **whole.card.get("certificate", {})}}
    text = json.dumps(card)
    program = torch.export.export(whole.module, whole.examples[0], dynamic_shapes=whole.sizes)
    with torch.no_grad():
        content, run = (_onnx if path.suffix == ".onnx" else _torch_program)(program, whole, text)
        worst = max(float((run(*x)[0] - whole.reference(*x)).abs().max()) for x in whole.examples)
    if not worst <= TOLERANCE:
        raise NotExported(
            f"not exported: {whole.outputs[0]} of {path.name} would differ by {worst:.3g}, more than {TOLERANCE:g}"
        )
    card["sha256"] = hashlib.sha256(content).hexdigest()
    with together(card_path(path), path) as (card_file, file):
        file.write_bytes(content)
        card_file.write_text(json.dumps(card, indent=2))
    return path


def card_path(path: Path) -> Path:
    """PATH.onnx.json: PATH.json belongs to the weights that may stand beside it."""
    return path.with_name(f"{path.name}.json")


@graph(Classifier)
def _classifier(network: Classifier) -> Graph:
    a, module = network.architecture, WithRadius(network).eval()
    shape, generator = (a.channels, a.height, a.width), torch.Generator().manual_seed(0)
    examples = [torch.rand((n, *shape), generator=generator).to(network.head.weight) for n in (2, 3)]
    constants, rounding = network.pairwise_lipschitz(), module.rounding
    return Graph(
        module=module,
        inputs=("images",),
        outputs=("logits", "radius"),
        examples=tuple((x,) for x in examples),
        reference=plain(network),
        sizes=({0: torch.export.Dim("batch", min=1)},),
        card={
            "kind": "classifier",
            "input": {"images": ["batch", *shape], "range": [0, 1]},
            "outputs": {"logits": ["batch", a.classes], "radius": ["batch"]},
            "certificate": {"pairwise_lipschitz": constants.tolist(), "rounding": rounding.tolist()},
        },
    )


@graph(Denoiser, Symmetrized)
def _denoiser(network: Denoiser | Symmetrized) -> Graph:
    like, generator = next(network.parameters()), torch.Generator().manual_seed(0)
    shapes = [(2, network.channels, *size) for size in ((25, 31), (16, 18), (8, 21), (40, 33))]
    images = [torch.rand(shape, generator=generator).to(like) for shape in shapes]
    levels = torch.tensor([0.2, 0.9]).to(like) * network.max_noise_level
    batch, height, width = (torch.export.Dim(name, min=low) for name, low in (("batch", 1), ("height", 3), ("width", 3)))
    return Graph(
        module=WithLevels(network).eval(),
        inputs=("x", "sigma"),
        outputs=("denoised",),
        examples=tuple((x, levels) for x in images),
        reference=plain(network),
        sizes=({0: batch, 2: height, 3: width}, {0: batch}),
        card={
            "kind": "denoiser",
            "input": {
                "x": ["batch", network.channels, "height", "width"],
                "range": [0, 1],
                "sigma": ["batch"],
                "sigma_range": [0, network.max_noise_level],
            },
            "outputs": {"denoised": ["batch", network.channels, "height", "width"]},
        },
    )


def _torch_program(program: torch.export.ExportedProgram, whole: Graph, text: str) -> tuple[bytes, Run]:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={f"{METADATA}.json": text})
    loaded = torch.export.load(io.BytesIO(content.getvalue())).module()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = loaded(*inputs)
        return found if isinstance(found, tuple) else (found,)

    return content.getvalue(), run


def _onnx(program: torch.export.ExportedProgram, whole: Graph, text: str) -> tuple[bytes, Run]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it for this
    except ImportError as error:
        raise NotExported(f"writing ONNX needs the extra `export` ({error}): pip install 'stablenet[export]'") from None
    written = torch.onnx.export(program, input_names=whole.inputs, output_names=whole.outputs, verbose=False)
    if written is None:
        raise NotExported("torch wrote no ONNX program: it does so with dynamo=True, its default")
    model = written.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, text
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        feed = {name: x.detach().cpu().numpy() for name, x in zip(whole.inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(y) for y in session.run(None, feed))

    return content, run
