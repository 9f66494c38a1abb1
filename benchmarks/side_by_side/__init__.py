"""The parts of `throughput.py`, in the order in which it uses them.

`plan` says how much is measured, `peers` what is compared, `processes` starts it, `measure` takes the times, `compare`
draws the conclusions, `table` and `figures` show them, and `machine` says where this was.
"""
