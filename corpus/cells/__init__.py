"""Cells: stores of millions of them, built, sampled and tokenized."""
