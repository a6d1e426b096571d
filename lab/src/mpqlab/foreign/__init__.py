"""What other programs leave on a host, imitated for machines of the lab: files and rules as those programs write them.

`mpqlab seed MACHINE PROGRAM` puts them there. They survive a reboot as the real ones do: by a generator, by a unit, or
as files that the boot reads.
"""
