"""Tables and pages that are written from the code and from what the benchmarks have measured."""
