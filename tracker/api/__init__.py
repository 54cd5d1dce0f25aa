"""The HTTP API of a worker: routes, messages, who may ask, and what is answered."""
