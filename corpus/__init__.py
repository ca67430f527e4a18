"""Raw records to token shards: cleaning, modalities, tokenizer and zarr stores."""
