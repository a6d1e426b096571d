"""The `stripe` data plane: one session over several UDP sockets, encrypted, with FEC, ARQ and one controller.

`session.StripeSession` is one end of it. Nothing here has a socket, a clock or a source of random numbers.
"""
