"""Losses of segmentation networks and of classifiers: pure functions of logits and targets."""
