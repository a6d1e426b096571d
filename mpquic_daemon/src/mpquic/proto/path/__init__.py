"""One WAN of one tunnel: its state, its path MTU, its share of the WAN's capacity."""
