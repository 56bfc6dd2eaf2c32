"""One client that speaks the Centrifuge dialect.

Rooms: `session` (the state machine and the way out), `connecting` (who the client is), `places` (its channels),
`asking` (what it may ask), `renewing` (its new tokens), `service` (what all sessions share).
"""
