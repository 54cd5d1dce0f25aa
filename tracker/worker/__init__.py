"""The worker process: Faust around the partitions, the web pages, start and end."""
