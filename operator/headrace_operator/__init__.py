"""The kopf operator: scales WorkerPools on queue depth."""
