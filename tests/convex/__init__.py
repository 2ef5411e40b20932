"""Convex programs of networks."""
