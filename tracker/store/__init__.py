"""The states of one partition: in memory, in RocksDB, in the changelog, in one commit."""
