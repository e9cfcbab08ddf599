"""What one GPU does with its time, in measurements that stand alone: each runs in a process of its own (`engramctl bench gpu`).

A measurement is a function of an `Environment` that tells what it has found as it comes, by name: one that is too slow or fails keeps what
it had.
"""
