"""Gates: what may enter the corpus, by rule: licences, personal data, duplicates, evaluation sets, quality."""
