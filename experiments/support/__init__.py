"""Names, options, printing, results, provenance, progress and parallel jobs, shared by the verbs."""
