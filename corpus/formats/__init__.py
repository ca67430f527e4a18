"""Formats: one file reads one format, whichever modality asks for it."""
