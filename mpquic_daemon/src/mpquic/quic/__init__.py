"""What drives aioquic: connections, their listener and data plane, without a socket."""
