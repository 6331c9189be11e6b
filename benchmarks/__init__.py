"""Measurements that people run by hand; each prints ratios taken in one run."""
