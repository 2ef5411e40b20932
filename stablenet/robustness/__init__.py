"""Certified radii and the attacks that they are held against."""
