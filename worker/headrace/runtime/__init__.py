"""A worker process: claim, run, report, and the passes that keep a queue healthy."""
