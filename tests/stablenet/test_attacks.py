"""On a trained network no attack comes closer than a certified radius, and a radius that lies is found out."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from stablenet.bundled import data_path
from stablenet.cli import main
from stablenet.images.labeled import LabeledImages, idx_folder
from stablenet.networks import Classifier
from stablenet.networks.architectures import ClassifierShape
from stablenet.robustness.attacks import Attack, Attacked, CertificateViolated, attack
from stablenet.robustness.certification import certified_accuracy
from stablenet.robustness.report import certified, write_attack
from stablenet.robustness.slack import slack_of
from stablenet.training.classifier import train
from stablenet.training.recipe import ClassifierRecipe
from stablenet.training.schedule import LearningSchedule
from stablenet.weights import save

EPSILONS = (36 / 255, 0.5, 1.0)
QUICK = Attack(epsilons=EPSILONS, steps=15, restarts=1)


def clothes() -> LabeledImages:
    return idx_folder(data_path("fashion-mnist/train-images-idx3-ubyte.gz").parent)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Classifier:
    """A small network after some steps on the bundled images: most of them are classified rightly."""
    pace = {"warmup_steps": 5, "average_decay": 0.9}
    schedule = LearningSchedule(60, learning_rate=5e-3, kernel_rate=10.0, optimizer="orthogonalized", **pace)
    shape = ClassifierShape(scale=4, stages=((16, 2),), dense_features=32)
    recipe = ClassifierRecipe(shape, batch_size=64, precision="bf16-mixed", schedule=schedule)
    images = clothes()
    *_, (_, network) = train(recipe, images.part(0, 9000), images.part(9000, 9200), tmp_path_factory.mktemp("run"))
    return network.eval()


@pytest.fixture(scope="module")
def held_out() -> LabeledImages:
    return clothes().part(9500, 9560)


@pytest.fixture(scope="module")
def found(trained, held_out) -> Attacked:
    return attack(trained, held_out, QUICK)


def test_no_distance_is_below_its_radius(trained, held_out, found):
    predictions, radii = certified(trained, held_out)
    assert torch.equal(predictions, found.predictions)
    assert float(found.right.double().mean()) > 0.6
    assert torch.isfinite(found.distances).double().mean() > 0.9, "the attacks are too weak to tell anything"
    assert (found.distances >= radii).all()
    for epsilon, share in found.accuracy((0.0, *EPSILONS)).items():
        assert share >= certified_accuracy(radii, predictions, held_out.labels, (epsilon,))[epsilon]


def test_what_was_found_is_what_it_claims(trained, held_out, found):
    clean = held_out.images.float() / 255
    hit = torch.isfinite(found.distances)
    with torch.no_grad():
        classes = trained(found.nearest).argmax(1)
    assert torch.equal(classes, found.changed)
    assert (classes != found.predictions)[hit].all()
    assert 0 <= float(found.nearest.min()) <= float(found.nearest.max()) <= 1
    torch.testing.assert_close((found.nearest - clean).double().flatten(1).norm(dim=1)[hit], found.distances[hit])
    assert {"DeepFool"} <= set(found.found_by) <= {"DeepFool", "projected gradient", ""}


@pytest.mark.parametrize("trainable", [False, True])
def test_an_attack_leaves_each_parameter_as_frozen_as_it_was(held_out, trainable):
    shape = ClassifierShape(scale=4, stages=((16, 1),), dense_features=8, dense_blocks=1)
    network = Classifier(ClassifierRecipe(shape).sized(held_out.shape, 10)).eval()
    wanted = [trainable and k % 2 == 0 for k, _ in enumerate(network.parameters())]
    for parameter, learns in zip(network.parameters(), wanted, strict=True):
        parameter.requires_grad_(learns)
    attack(network, held_out.part(0, 2), Attack((0.5,), 2, 1))
    assert [parameter.requires_grad for parameter in network.parameters()] == wanted


def test_a_radius_that_lies_is_refuted(trained, held_out):
    _, radii = certified(trained, held_out)
    with pytest.raises(CertificateViolated, match="is a bug in the certificate"):
        attack(trained, held_out, QUICK, radii=20 * radii)
    attack(trained, held_out.part(0, 4), QUICK, radii=radii[:4])


class Coarse(nn.Module):
    """Logits (mean - 1/2, 1e-7), the first in float32 only a multiple of 2^-10, so that classes seem to change too early."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        value = (self.weight * x.flatten(1).mean(1) + 8192) - 8192.5
        return torch.stack([value, torch.full_like(value, 1e-7)], 1)


def test_rounding_refutes_no_radius():
    images = torch.full((1, 1, 4, 4), 127, dtype=torch.uint8)
    images.flatten()[:11] += 1  # the mean is 2043 / 4080
    radius = torch.tensor([(2043 / 4080 - 0.5 - 1e-7) * 4 * 0.999], dtype=torch.float64)
    found = attack(Coarse().eval(), LabeledImages(images, torch.zeros(1).long(), ("a", "b")), QUICK, radii=radius)
    assert found.distances < radius, "float32 sees no other class too early: the test tells nothing"


def test_autoattack_never_finds_less(trained, held_out, found):
    part = held_out.part(0, 12)
    settings = replace(QUICK, epsilons=(0.5,), autoattack=("apgd-ce", "apgd-t"))
    stronger = attack(trained, part, settings, radii=certified(trained, part)[1])
    weaker = attack(trained, part, replace(settings, autoattack=()))
    assert (stronger.distances <= weaker.distances).all()


def test_two_classes_can_be_attacked(held_out):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 2)).eval()
    settings = Attack(epsilons=(0.5,), steps=5, restarts=1, autoattack=("apgd-ce", "fab-t"))
    two = LabeledImages(held_out.images[:4], held_out.labels[:4] % 2, ("a", "b"))
    distances = attack(network, two, settings).distances
    # an affine function: the distance to its zero is known, up to the borders of [0, 1]
    direction = network[1].weight[0] - network[1].weight[1]
    gaps = network(two.images.float() / 255) @ torch.tensor([1.0, -1.0])
    assert (distances >= gaps.abs().double().detach() / direction.norm().double().detach() * (1 - 1e-5)).all()
    assert torch.isfinite(distances).all()


def test_slack_lies_below_the_constants(trained, held_out):
    measured = slack_of(trained, held_out, count=16)
    assert 0 < measured.jacobian_norm <= measured.lipschitz
    assert 0 < measured.margin_slope <= 1


def test_a_new_network_wastes_nothing_at_data(held_out):
    """Blocks begin as reflections: the Jacobian of the body has norm 1 where the certified constant is 1."""
    torch.manual_seed(0)
    recipe = ClassifierRecipe(ClassifierShape(stages=((8, 2), (32, 2)), dense_features=64, dense_blocks=2))
    network = Classifier(recipe.sized(held_out.shape, 10)).eval()
    measured = slack_of(network, held_out, count=8)
    assert measured.jacobian_norm > 0.8 * measured.lipschitz


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epsilons": (36.0,)}, "36/255"),
        ({"epsilons": (-0.1,)}, ">= 0"),
        ({"steps": 0}, "steps must be"),
        ({"restarts": 0}, "restarts must be"),
        ({"autoattack": ("pgd",)}, "unknown parts"),
    ],
)
def test_bad_settings_are_refused(change, text):
    with pytest.raises(ValueError, match=text):
        Attack(**change)


def test_a_network_in_training_mode_is_refused(held_out):
    with pytest.raises(ValueError, match="eval"):
        attack(Classifier(ClassifierRecipe().sized((1, 28, 28), 10)), held_out, QUICK)


def test_the_command_writes_a_table_and_two_figures(trained, tmp_path, capsys):
    save(trained, tmp_path / "net.safetensors")
    arguments = ["--count", "6", "--steps", "10", "--restarts", "1", "--epsilons", "0.2", "--output", str(tmp_path / "out")]
    main(["attack", str(tmp_path / "net.safetensors"), *arguments])
    text = capsys.readouterr().out
    assert "accuracy under attack at 0.2:" in text
    assert "no image was changed within its certified radius" in text
    rows = list(csv.DictReader((tmp_path / "out" / "attacked.csv").open()))
    assert len(rows) == 6
    assert all(float(row["certified_radius"]) <= float(row["distance"]) for row in rows)
    for name in ("attacked_accuracy.png", "smallest_changes.png"):
        assert min(Image.open(tmp_path / "out" / name).size) > 300
    with pytest.raises(SystemExit):
        main(["attack", str(tmp_path / "net.safetensors"), "--count", "0"])
    assert "count must be at least 1" in capsys.readouterr().err


def test_a_violation_writes_nothing(trained, held_out, tmp_path, monkeypatch):
    original = Classifier.pairwise_lipschitz
    monkeypatch.setattr(Classifier, "pairwise_lipschitz", lambda self: original(self) / 20)
    with pytest.raises(CertificateViolated):
        write_attack(trained, held_out.part(0, 8), QUICK, tmp_path / "out")
    assert not (tmp_path / "out").exists()
