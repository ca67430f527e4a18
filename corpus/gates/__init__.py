"""Gates: what may enter the corpus. Licences, personal data, duplicates, evaluation sets and quality, decided by rule."""
