"""edgekd and its peers on the same model, data, threads and runtime: ``python -m benchmarks.peers --help``."""
