"""What compare, tune and search measure with.

one set of weights under many scalings: engine.py · what is measured: variants.py · on what:
texts.py, passkeys.py · what comes out: measurement.py, bands.py, differences.py · kept and written:
stored.py, records.py · several processes: processes.py
"""
