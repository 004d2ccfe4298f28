"""Figures of verdicts, probes and calibration."""
