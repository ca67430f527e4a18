"""Megatron: layouts and their cost, the model, attention, data, trainer, checkpoints and export."""
