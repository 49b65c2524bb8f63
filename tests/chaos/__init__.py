"""The fault kit: what breaks a system of real processes on purpose, and what judges it afterwards.

`proxy` loses, delays and cuts what passes between a client and Redis; `aof` cuts and corrupts what Redis wrote;
`system` runs APIs and workers as processes; `nemesis` breaks them by a seeded plan; `ledger` is what handlers note
outside Redis; `checker` compares all of it. `python -m chaos` is the soak (`make soak`).
"""
