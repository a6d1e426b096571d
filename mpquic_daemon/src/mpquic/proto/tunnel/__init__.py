"""One tunnel: class queues, scheduling, de-duplication, and what becomes writes of the TUN."""
