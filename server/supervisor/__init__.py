"""N workers as one server: their processes, the broker between them, and what they say together.

Rooms: `exchange` (the broker that all share), `crew` (the processes), `worker_link` (what the supervisor knows of one
worker), `tally` (their metrics as one scrape), `spread` and `balance` (who gets new
connections), `board` (the internal port), `crew_api` (the server API), `post` (the worker's end of all this), `orphan`
(what becomes of one that hangs when nobody is there to see it).
"""
