"""A real Kubernetes for the tests: `python -m cluster up` and `down`, from this folder's parent."""
