"""The published SDKs and the API's published library against the real server: what their users do, with their eyes.

Each SDK runs where it lives (Python, Node, a browser) in a small program that takes orders and tells what happens, in
the same words for all (`client.py`, `client.js`); so one test is one story, told with every SDK. Rooms: `programs`
starts them, `clients` is what a test holds in its hand, `site` the server and its keys, `line` the wire between them.
"""
