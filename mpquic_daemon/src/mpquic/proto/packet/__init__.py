"""Packets: IP and virtio headers, superframes and their segments, and the frames that carry them."""
