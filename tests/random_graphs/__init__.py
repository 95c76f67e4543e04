"""Random graphs over all primitives, each with a bound on how far two right implementations may differ.

A graph is a pure function of a seed and a number of operations, and the graph of fewer operations is its beginning: a
failure is repeated by two numbers, and shrinks by the second. Along with each node goes what is known of its values:
a bound on their size, a bound on the error that rounding may have left in them, and whether they are exact (small
multiples of a power of two, which no order of summation and no fused multiply-add can change). Operations with steps,
such as floor or a comparison, are only applied to exact values, so that a difference of one rounding cannot grow.
"""

from .graphs import RandomGraph, random_graph, random_graphs

__all__ = ["RandomGraph", "random_graph", "random_graphs"]
