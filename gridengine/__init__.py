"""Everything that touches Grid Engine: complexes, hooks, DRMAA, and the commands `qpu` and `qpu-admin`."""
