"""TLS on one machine: certificates to try it with, and the door that asks every MQTT client for one.

`certificates` makes and keeps them, `stream` is TLS on a connection, `door` listens and forwards, `refusals`
names why a handshake failed, `command` is what a user types.
"""
