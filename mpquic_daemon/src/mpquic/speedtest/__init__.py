"""Throughput through a tunnel and on the bare link beneath it, one after the other, with counters that prove the way.

`runs` plans and judges, `iperf3` speaks to the tool, `report` is for people; all of it is pure. Who measures gives the
functions that read counters and run commands.
"""
