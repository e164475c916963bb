"""Vectors, scores and likelihoods of texts: what models are asked for beside text. No step loop here."""
