"""`qpu why`: why a job waits, from both sides.

Asked in facts, decided in answer (with sight: the QPUs and their windows; reasons: the scheduler's words), written in report.
"""
