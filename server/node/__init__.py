"""This process's side of every channel: who listens here in which encoding, at which position, under which rules.

Rooms: `namespaces` (the rules of a channel), `permissions` (who may do what there), `encodings` (a publication as
bytes, once for all who read alike), `audience` (the listeners of one channel), `node` (between the broker and the hub),
`registry` (which clients there are), `chores` (what is done now and then).
"""
