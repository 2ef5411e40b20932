"""Certified radii of the shipped Fashion-MNIST classifier beside what attacks find: python examples/plot_robustness.py.

Writes classifier/attacked.csv, attacked_accuracy.png and smallest_changes.png. The images ship with the package and were
trained on; for figures that mean something give `stablenet attack` the test images.
"""

from pathlib import Path

from stablenet.images.sources import LabeledSource
from stablenet.robustness.attacks import Attack
from stablenet.robustness.report import write_attack
from stablenet.robustness.slack import slack_of
from stablenet.weights import pretrained

classifier = pretrained("classifier-fashion-mnist")
images = LabeledSource().read(train=True, channels=1).part(0, 60)
print(slack_of(classifier, images))
found = write_attack(classifier, images, Attack(epsilons=(36 / 255, 0.5, 1.0), steps=20, restarts=1), Path("classifier"))
for epsilon, share in found.accuracy((0.0, 36 / 255, 0.5, 1.0)).items():
    print(f"accuracy at {epsilon:.3f}: {100 * share:.1f} %")
