"""Fully connected conditional random fields."""

from wsss_cli.crf.dense import dense_crf

__all__ = ["dense_crf"]
