"""The real worker, the real API and the real scripts, in one thread, in virtual time, by an order drawn from a seed.

Each simulated process has an event loop of its own (`loop`), which the world runs turn by turn (`world`); threads of
such a process take turns with it (`threads`). What passes between processes is bytes on simulated connections, which
can be late, cut, or swallowed (`net`). Behind the address of Redis stands a real one whose clock is the world's
(`redis_double`, `timed_scripts`). `nemesis` breaks all of it, `observer` looks at what Redis carries out, and
`verdict` judges the end with the fault kit's checker, `jobs` what bulk jobs say that they did. `python -m system_model
--seed N` repeats a run.

Handlers in processes are not in it. Their children are real interpreters with a clock and a scheduler of their own,
which the kernel ends; in virtual time there would be a stand-in for all that is worth a test there: a child that lives,
that hangs, that dies. `test_processes` and `test_chaos_poison` do that to real ones.
"""
