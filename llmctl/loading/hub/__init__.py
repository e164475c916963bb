"""Models that lie on a hub: download, cache, removal, what is already here. No torch."""
