"""Prolog and epilog. They run as root, in the job's environment, on every execution host."""
