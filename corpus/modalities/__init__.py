"""One modality, one file; the listing of this folder is the registry."""
