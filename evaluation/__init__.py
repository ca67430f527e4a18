"""Benchmarks and agents scored with Ray, with statistics, evidence and the report."""
