"""The benchmark behind `fastbp bench`: how long training steps, fits and single calls take here.

    workloads.py     what is timed: one list
    contestants/     who is timed: fastbp, the NumPy loop, and the peers that are installed
    worker.py        one contestant in a process of its own; pool.py starts, stops and asks them
    timing.py        the one timing harness, and what is kept of its samples
    peaks.py         what this machine can do at most, probed
    runner.py        rounds in turn, probes around them, the document that is saved
    document.py      the saved file: reading, checking against schema.json
    report.py, plots.py, compare.py    the document as tables, pictures, and beside another one

Nothing here is imported by `import fastbp`.
"""
