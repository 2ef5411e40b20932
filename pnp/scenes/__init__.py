"""Scenes: a measurement, the physics behind it, and what of the unknown image it shows; one file a kind of scene."""
