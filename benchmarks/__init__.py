"""Every figure that Skiff holds itself to, each measured beside its other side in the same run.

    python -m benchmarks                    everything (about six minutes on two quiet cores)
    python -m benchmarks rounds startup     the named ones
    python -m benchmarks --quick            a few samples of each: for development, no figure to quote

`rows/` has one file for each group of figures; `row.py` is what they return. Nothing here asserts: whether a figure
holds depends on the machine and on what else runs on it, which is for a person to judge.
"""
