"""Scaling, simulated: the operator's own `decide()` beside KEDA and others, on a virtual clock.

`python -m bench.autoscaling --help`
"""
