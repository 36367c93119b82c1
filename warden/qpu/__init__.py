"""The emulated QPU: what a neutral-atom machine would do with a sequence, done by Pulser's emulators."""
