"""The Centrifuge dialect: Centrifugo's client protocol, version 2, as JSON and as Protobuf. Pure, like its neighbours.

Rooms: `codes` (what goes wrong, in numbers), `commands` (what clients ask), `replies` (what they are told), `codec`
(what both encodings are to the session), `json_codec` over `json_commands` and `json_scan`, `protobuf_codec` over
`schema`, `data` (a payload as each side sees it), `fossil` (deltas).
"""
