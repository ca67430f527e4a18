"""What a layout costs, by arithmetic alone: memory, FLOPs, traffic, time; no torch. docs/planning.md compares it."""
