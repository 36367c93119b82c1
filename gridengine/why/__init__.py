"""`qpu why`: why a job waits, from both sides. Asked in facts, decided in answer and reasons, written in report."""
