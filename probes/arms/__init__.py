"""The arms of the battery, one file per arm, numbered M1 to M12 as in probes/README.md."""
