"""Accuracy under noise: noise of the deviation it says, trainings that repeat, and the command that compares."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

from stablenet.cli import main
from stablenet.images.labeled import LabeledImages
from stablenet.networks import Classifier, ClassifierArchitecture
from stablenet.robustness.noise import NOISES, accuracy_under_noise
from stablenet.training.plain import train_plainly
from tests.stablenet.test_cli import fails_in_one_line
from tests.stablenet.test_plain_install import write_mnist


def stripes(count: int = 64) -> LabeledImages:
    """Two classes that one look tells apart: bright above or bright below."""
    labels = torch.arange(count) % 2
    images = torch.zeros(count, 1, 8, 8, dtype=torch.uint8)
    images[labels == 0, :, :4] = 200
    images[labels == 1, :, 4:] = 200
    return LabeledImages(images, labels, ("above", "below"))


@pytest.mark.parametrize("name", NOISES)
def test_noise_has_mean_0_deviation_1_and_its_tails(name):
    generator = torch.Generator().manual_seed(0)
    drawn = NOISES[name](torch.empty(200000, dtype=torch.float64), generator)
    assert abs(float(drawn.mean())) < 0.01 and float(drawn.std()) == pytest.approx(1, abs=0.01)
    tail = {"gaussian": math.erfc(3 / math.sqrt(2)), "laplace": math.exp(-3 * math.sqrt(2))}[name]
    assert float((drawn.abs() > 3).double().mean()) == pytest.approx(tail, rel=0.15)


class Brighter(nn.Module):
    """Logits that are the brightness above and below."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return torch.stack([x[:, :, :4].mean((1, 2, 3)), x[:, :, 4:].mean((1, 2, 3))], 1)


def test_accuracy_falls_with_the_noise_as_it_must():
    """The difference of two means of 32 pixels has the deviation sigma/4 and the mean 200/255."""
    images = stripes(4000)
    found = accuracy_under_noise(Brighter(), images, deviations=(0.0, 1.0, 4.0))
    assert found[0.0] == 1
    for deviation in (1.0, 4.0):
        expected = 1 - math.erfc(200 / 255 / (deviation / 4) / math.sqrt(2)) / 2
        assert found[deviation] == pytest.approx(expected, abs=0.02)
    assert accuracy_under_noise(Brighter(), images, deviations=(4.0,)) == {4.0: found[4.0]}, "a deviation has noise of its own"
    for bad in ((), (-0.1,), (math.nan,), (math.inf,)):
        with pytest.raises(ValueError, match="deviations must be finite"):
            accuracy_under_noise(Brighter(), images, deviations=bad)


def train(network: nn.Module, **settings: float) -> list[float]:
    return list(train_plainly(network, stripes(), steps=30, generator=torch.Generator().manual_seed(0), **settings))


def test_a_plain_training_learns_repeats_and_keeps_constraints():
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(64, 2)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    first, second = (train(network) for network in networks)
    assert first == second and first[-1] < 0.5 * first[0]
    assert accuracy_under_noise(networks[0], stripes(), deviations=(0.0,)) == {0.0: 1.0}
    constrained = Classifier(ClassifierArchitecture(height=8, width=8, stages=((4, 1),), dense_features=8, classes=2))
    train(constrained, temperature=0.1)
    assert not constrained.training
    constrained.pairwise_lipschitz()  # the certificate holds after training, or this refuses
    with pytest.raises(ValueError, match="learning_rate and temperature positive"):
        train(constrained, temperature=0.0)
    with pytest.raises(ValueError, match="the loss became"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), temperature=1e-300)


SMALL = ("noise-robustness", "--epochs", "1", "--seeds", "2", "--deviations", "0", "0.5")


def test_the_command_trains_prints_and_plots_and_repeats(tmp_path, capsys):
    (tmp_path / "mnist").mkdir()
    write_mnist(tmp_path / "mnist")
    texts = []
    for place, name in (("hidden", "a"), ("hidden", "b"), ("input", "c")):
        output = tmp_path / name
        main([*SMALL, "--data", str(tmp_path / "mnist"), "--place", place, "--output", str(output)])
        assert "laplace 0.5, with the block: " in capsys.readouterr().out
        assert {p.name for p in output.iterdir()} == {"noise_robustness.json", "gaussian.png", "laplace.png"}
        found = json.loads((output / "noise_robustness.json").read_text())
        texts.append([{k: v for k, v in row.items() if k != "seconds"} for row in found["results"]])
        assert [(row["network"], row["seed"]) for row in found["results"]] == [
            (network, seed) for seed in (0, 1) for network in ("without", "with the block")
        ]
        assert found["results"][0]["parameters"] == found["results"][1]["parameters"]
        assert (found["train"], found["test"]) == (6, 6)
    assert texts[0] == texts[1]


def test_the_command_takes_the_images_that_ship(tmp_path, capsys):
    main([*SMALL, "--seeds", "1", "--count", "40", "--backbone", "cnn", "--output", str(tmp_path)])
    assert "gaussian 0.5, without: " in capsys.readouterr().out
    assert json.loads((tmp_path / "noise_robustness.json").read_text())["test"] == 2000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--epochs", "0"), "epochs must be at least 1"),
        (("--seeds", "0"), "seeds must be at least 1"),
        (("--count", "0"), "count must be at least 1"),
        (("--steps", "0"), "steps must be an integer of at least 1"),
        (("--weight", "-1"), "weight > 0"),
        (("--scale", "2"), r"scale must lie in (0, 1]"),
        (("--place", "hidden", "--frame-size", "100"), "dimension <= size"),
        (("--place", "hidden", "--frame", "hadamard", "--frame-size", "300"), "power of two"),
        (("--deviations", "-1"), "deviations must be finite"),
        (("--data", "absent"), "absent"),
        (("--place", "input", "--window", "40"), "at least 40 pixels a side"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(arguments, text, capsys, tmp_path):
    output = tmp_path / "out"
    assert text in fails_in_one_line(capsys, *SMALL, "--count", "20", "--output", output, *arguments)
    assert not output.exists()
