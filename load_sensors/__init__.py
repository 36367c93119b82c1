"""Grid Engine load sensors: one module a sensor, and the begin/end protocol that they share."""
