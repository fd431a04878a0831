"""Weakly supervised semantic segmentation: from image tags to masks and a trained network."""

__version__ = "0.1.0"
