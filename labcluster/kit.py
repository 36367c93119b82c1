"""The kit on a cluster: its virtual environment, its configuration, Warden and the QPU's worker."""
