"""From a graph to a plan of kernels: one pass a file, listed in `pipeline`."""
