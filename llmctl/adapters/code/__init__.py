"""Families with logic that no row can say: a class a file, derived from `base.FamilyAdapter`, no torch.

A row names its class as `code = { class = "llmctl.adapters.code.file:Class" }`. None is needed so far.
"""
