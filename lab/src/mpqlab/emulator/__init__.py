"""Link emulator: rate, delay, loss and their kin between two TUN devices, in user space."""
