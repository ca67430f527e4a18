"""Benchmarks and agents scored with Ray, with statistics, evidence and the report."""

import os

os.environ["RAY_AUTH_MODE"] = "token"  # no Ray without a token; it reads this once, when it is imported
