"""N workers as one server: their processes, the broker between them, and what they say together.

Rooms: `exchange` (the broker that all share), `crew` (the processes), `worker_link` (what the supervisor knows of one
worker), `tally` (their metrics as one scrape), `spread` (who gets new connections), `board` (the internal port).
"""
