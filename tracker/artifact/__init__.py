"""The directory that the indexer publishes: versions, manifest, its reader and writer."""
